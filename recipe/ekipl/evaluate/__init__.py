"""How good a checkpoint or an expert is on held-out rows: ask, judge, summarize. `python -m recipe.ekipl.evaluate --help`.

    __main__.py     START HERE: the command and its order
    options.py      its options, checked together
    subject.py      who is evaluated: a checkpoint or an expert
    checkpoint.py   a verl checkpoint folder -> a Hugging Face folder
    rows.py         parquet -> rows to ask about
    scan.py         a first look at a split: everything in it can be asked and judged
    asked.py        what was asked, as a digest: which old answers still count
    answers.py      the answers on disk, and how they survive a kill
    ask.py          which answers are missing, in which batches they are asked for
    on_vllm.py      a model answers, through vLLM's offline engine
    on_expert.py    an expert of the configuration answers
    judge.py        answers -> scores by the paper's or the released rules
    result.py       scores -> means, intervals, pass@k; the file that tables and figures read

An evaluation is a folder:

<out>/
├── asked.json                     model, sampling, seed; a call that asks something else is refused
├── <split>/answers.jsonl          a line an answer, in the order of rows and samples
├── <split>/answers.partial.jsonl  while it is being made: a line a batch
├── <split>/scores.<rules>.jsonl   a line a row
└── result.<rules>.json            what tables and figures read
"""
