"""``fastmlp evaluate``: test a saved network."""

import fastmlp as fm
from fastmlp._cli import models
from fastmlp._cli.arguments import Data, Json, Model, Target
from fastmlp._cli.output import print_json, print_test, test_facts

__all__ = ["evaluate"]


def evaluate(model: Model, data: Data, target: Target = None, json: Json = False) -> None:
    """Test a saved network on the test part of the data, or on all data without parts."""
    net = fm.MLP.load(model)
    samples, names = models.read_labelled(net, data, target)
    y = models.targets(samples, names)
    if json:
        print_json(test_facts(net, samples.X, y, names))
    else:
        print_test(net, samples.X, y, names)
