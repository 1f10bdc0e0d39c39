"""Where veRL 0.9.1 calls us. The only folder of this package that imports verl, ray or transfer_queue.

    worker.py      agent_loop_manager_class: builds each group before anything reaches TransferQueue
    sampler.py     trainer.v1.sampler.custom_sampler: the metrics of a step, and the group statistics for the baseline
    running.py     verl's trainer of this process, for the two of us whom verl does not hand it
    advantage.py   algorithm.adv_estimator=ekipl: a baseline over all candidates
    trainer.py     mixed into verl's trainer by task_runner.py: no step on a batch that teaches nothing, and
    weighing.py    the weights and fields of a batch; loss.py reads them

tests/contracts/test_verl_seams.py pins every name and signature that these files hang on.
"""
