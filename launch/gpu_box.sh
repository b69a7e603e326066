#!/usr/bin/env bash
# {{ name }}: one machine with one or several GPUs, which one process uses together.
# To keep it running after logout: nohup bash FILE > train.log 2>&1 &
export PATH={{ bin | sh }}:"$PATH"
export VIDJAX_COMMIT={{ commit | sh }}
export JAX_COMPILATION_CACHE_DIR={{ cache | sh }}
export RESTARTS={{ restarts }}
cd {{ here | sh }} || exit 2
set -- {{ command | sh }}
{% include "run.sh" %}
