"""Where veRL 0.9.1 calls us. The only folder of this package that imports verl, ray or transfer_queue.

    worker.py      agent_loop_manager_class: builds each group before anything reaches TransferQueue
    sampler.py     trainer.v1.sampler.custom_sampler: the metrics of a step, and the group statistics for the baseline
    running.py     verl's trainer of this process, for the two of us whom verl does not hand it
    advantage.py   algorithm.adv_estimator=ekipl: a baseline over all candidates
    trainer.py     mixed into verl's trainer by task_runner.py: no step on a batch that teaches nothing, and
    weighing.py    the weights and fields of a batch; loss.py reads them

The worker leaves to asking.py whom to ask and for how long, to judge.py the rewards, to ../prompt.py and pictures.py what
verl's rows show, to outputs.py what is written; shared_bounds.py is the governor of all workers, lookahead.py knows the rows
of the next step, and task_runner.py ends what is out before Ray ends the workers.

tests/contracts/test_verl_seams.py pins every name and signature that these files hang on.
"""
