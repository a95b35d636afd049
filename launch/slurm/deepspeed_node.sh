#!/bin/bash
# One node's ranks under the DeepSpeed launcher; pretrain.sbatch starts it once on each node.
#
# `deepspeed` itself needs ssh between the nodes, and does not stop its ranks at SIGTERM. Its part on
# each node (deepspeed.launcher.launch) needs no ssh, and waits for its ranks up to 30 s.

set -uo pipefail
read -ra python <<<"$PRIMUS_PYTHON"

# The machines, for DeepSpeed: {"NODE": [DEVICE, ...], ...}, base64. It makes the
# devices of this node visible to its ranks, so they are those that SLURM gave to the job.
ranks=$PRIMUS_RANKS_PER_NODE
devices=${CUDA_VISIBLE_DEVICES:-$(seq --separator=, 0 $((ranks - 1)))}
devices=$(tr ',' '\n' <<<"$devices" | head --lines="$ranks" | sed 's/.*/"&"/' | paste --serial --delimiters=,)
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&\": [$devices]/" | paste --serial --delimiters=,)
world=$(base64 --wrap=0 <<<"{$nodes}" | tr '+/' '-_')

# SLURM signals all processes of a step, the launcher and its ranks among them. The launcher then
# ends with 1 for any exit code of its ranks; only this script knows of the signal.
signalled=0
trap 'signalled=1; interrupted=1' TERM
"${python[@]}" -m deepspeed.launcher.launch --node_rank="$SLURM_NODEID" --world_info="$world" \
    --master_addr="$MASTER_ADDR" --master_port="$MASTER_PORT" --log_level=warning \
    launch/deepspeed_train.py "$@" &
launcher=$!
interrupted=1
while ((interrupted)); do
    interrupted=0
    wait "$launcher"
    code=$?
done
((code != 0 && signalled)) && code=75 # stopped by the signal: start again
exit "$code"
