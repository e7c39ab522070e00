"""Transfer learning: a pretrained network and a few hundred labelled pictures become a classifier.

    from safelight import datasets, transfer
    splits = datasets.split(datasets.load("elpv"), seed=0)
    trained = transfer.train(splits, transfer.TrainConfig(unfreeze_from="block5_conv1"))
    report = transfer.evaluate(trained.model, splits.test, cut=trained.cut)
"""
