"""``python generate.py MODEL LOAD_FORMAT RANKS EXTRA``: prints eight tokens at temperature 0, as JSON."""

from __future__ import annotations

import json
import sys

from models import PROMPT


def main() -> None:
    from vllm import LLM, SamplingParams

    llm = LLM(
        sys.argv[1],
        load_format=sys.argv[2],
        tensor_parallel_size=int(sys.argv[3]),
        model_loader_extra_config=json.loads(sys.argv[4]),
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=2,
    )
    sampling = SamplingParams(temperature=0, max_tokens=8, detokenize=False, ignore_eos=True)
    (output,) = llm.generate([{"prompt_token_ids": PROMPT}], sampling)
    print(json.dumps(list(output.outputs[0].token_ids)), flush=True)


if __name__ == "__main__":
    main()
