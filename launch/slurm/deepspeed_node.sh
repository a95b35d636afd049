#!/bin/bash
# One node's ranks under the DeepSpeed launcher; pretrain.sbatch starts it once on each node.
#
# `deepspeed` itself would need ssh between the nodes, and forgets its ranks at SIGTERM; the part of
# it that runs on each node (deepspeed.launcher.launch) needs none, and waits for them up to 30 s.

set -uo pipefail
read -ra python <<<"$PRIMUS_PYTHON"

# What DeepSpeed wants to know of the machines: {"NODE": [DEVICE, ...], ...}, base64. It makes the
# devices of this node visible to its ranks, so they are those that SLURM gave to the job.
ranks=$PRIMUS_RANKS_PER_NODE
devices=${CUDA_VISIBLE_DEVICES:-$(seq --separator=, 0 $((ranks - 1)))}
devices=$(tr ',' '\n' <<<"$devices" | head --lines="$ranks" | sed 's/.*/"&"/' | paste --serial --delimiters=,)
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&\": [$devices]/" | paste --serial --delimiters=,)
world=$(base64 --wrap=0 <<<"{$nodes}" | tr '+/' '-_')

# SLURM signals all processes of a step, the launcher and its ranks among them. The launcher then
# ends with 1, whatever its ranks end with; what that means is known only here.
told=0
trap 'told=1; interrupted=1' TERM
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
((code != 0 && told)) && code=75 # told to stop: start again
exit "$code"
