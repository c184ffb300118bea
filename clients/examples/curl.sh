#!/usr/bin/env bash
# A chat completion that heals, with curl alone; then the same as a stream with its events.
set -euo pipefail
url=${1:-http://127.0.0.1:8000}
ask() {
  curl --silent --show-error --fail-with-body --no-buffer "$url/v1/chat/completions" \
    -H 'content-type: application/json' -d "$1"
}

ask '{"model": "smollm2-135m-instruct", "max_tokens": 60, "temperature": 1, "seed": 1, "healing": "on",
      "messages": [{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}]}'
echo
ask '{"model": "smollm2-135m-instruct", "max_tokens": 60, "temperature": 1, "seed": 1, "stream": true,
      "healing": {"stream": "live"},
      "messages": [{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}]}'
