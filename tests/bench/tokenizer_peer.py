#!/usr/bin/env python3
"""Compares our tokenizer's speed with Hugging Face's tokenizers 0.23.3.

  python3 -m venv /tmp/peer && /tmp/peer/bin/pip install tokenizers==0.23.3
  bazel build //tests/bench:tokenizer_benchmark
  /tmp/peer/bin/python tests/bench/tokenizer_peer.py TOKENIZER_JSON [TEXT]

One thread each, the same 1 MB of text, the same machine, alternating; the best
run of each counts.  Without TEXT, it is made of prose, code, markup, figures and
several scripts.  The ids of both must be equal.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402  The variable above has to come first.

ROUNDS = 5
TEXT_BYTES = 1 << 20
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def mixed_text():
    """Licences, our own sources, and sentences of many scripts, interleaved."""
    sources = []
    for folder, kinds in (("router/text", (".cc", ".h")), ("third_party", (".BUILD",)),
                          ("proto/lapidary/v1", (".proto",))):
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith(kinds):
                sources.append(os.path.join(ROOT, folder, name))
    folder = "/usr/share/common-licenses"
    if os.path.isdir(folder):
        sources += [os.path.join(folder, n) for n in sorted(os.listdir(folder))]
    blocks = []
    for path in sources:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        blocks += [text[i:i + 3000] for i in range(0, len(text), 3000)]
    cases = os.path.join(ROOT, "tests/testdata/tokenizer/mini/cases.jsonl")
    with open(cases, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    # Short stored texts, ten to a block: every script and many oddities.
    texts = [t for t in texts if len(t) < 2000]
    blocks += ["\n".join(texts[i:i + 10]) for i in range(0, len(texts), 10)]
    # In an order that mixes the kinds: every 7th, from each of 7 beginnings.
    blocks = [b for start in range(7) for b in blocks[start::7]]
    data = "".join(blocks).encode()
    while len(data) < TEXT_BYTES:
        data += data
    return data[:TEXT_BYTES].decode(errors="ignore")


def ours(binary, tokenizer, text_path):
    """Seconds of our fastest run."""
    out = subprocess.run(
        [binary, "--tokenizer=" + tokenizer, "--text=" + text_path,
         "--benchmark_filter=encode/text", "--benchmark_format=json",
         "--benchmark_min_time=0.2"],
        check=True, capture_output=True, text=True).stdout
    result = json.loads(out)["benchmarks"][0]
    return result["cpu_time"] / 1e3, int(result["tokens"])


def main():
    tokenizer_path = sys.argv[1]
    if len(sys.argv) > 2:
        with open(sys.argv[2], encoding="utf-8") as file:
            text = file.read()
    else:
        text = mixed_text()
    binary = os.environ.get(
        "TOKENIZER_BENCHMARK",
        os.path.join(ROOT, "bazel-bin/tests/bench/tokenizer_benchmark"))
    tokenize = os.environ.get("TOKENIZE",
                              os.path.join(ROOT, "bazel-bin/tools/tokenize"))
    peer = tokenizers.Tokenizer.from_file(tokenizer_path)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        peer_seconds, our_seconds = [], []
        for _ in range(ROUNDS):
            start = time.process_time()
            peer_ids = peer.encode(text, add_special_tokens=False).ids
            peer_seconds.append(time.process_time() - start)
            seconds, num_tokens = ours(binary, tokenizer_path, file.name)
            our_seconds.append(seconds)
    our_ids = json.loads(subprocess.run(
        [tokenize, "--tokenizer", tokenizer_path],
        input=json.dumps({"text": text}), check=True, capture_output=True,
        text=True).stdout)["ids"]
    size = len(text.encode()) / 1e6
    print(f"text            {size:.2f} MB, {num_tokens} tokens")
    print(f"equal ids       {our_ids == peer_ids}")
    print(f"tokenizers {tokenizers.__version__:7s}"
          f"{min(peer_seconds) * 1e3:8.1f} ms {size / min(peer_seconds):8.2f} MB/s")
    print(f"ours            {min(our_seconds) * 1e3:8.1f} ms"
          f" {size / min(our_seconds):8.2f} MB/s")
    print(f"ratio           {min(peer_seconds) / min(our_seconds):8.1f}")
    return 0 if our_ids == peer_ids else 1


if __name__ == "__main__":
    sys.exit(main())
