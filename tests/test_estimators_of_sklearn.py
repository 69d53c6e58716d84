"""scikit-learn's own tests of its two estimators, with the import replaced.

One is left out: it calls a private method of scikit-learn's implementation.
"""

from pathlib import Path

import pytest

test_mlp = pytest.importorskip("sklearn.neural_network.tests.test_mlp")
if not Path(test_mlp.__file__).is_file():
    pytest.skip("scikit-learn is installed without its tests", allow_module_level=True)

IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
source = Path(test_mlp.__file__).read_text(encoding="utf-8")
assert source.count(IMPORT) == 1
source = source.replace(IMPORT, "from fastmlp import MLPClassifier, MLPRegressor")
exec(compile(source, test_mlp.__file__, "exec"), globals())

del globals()["test_gradient"]  # calls _loss_grad_lbfgs
pytestmark = [pytest.mark.jit, pytest.mark.filterwarnings("ignore")]  # errors only where it says so


@pytest.fixture
def global_random_seed() -> int:
    """Of scikit-learn's conftest.py."""
    return 42
