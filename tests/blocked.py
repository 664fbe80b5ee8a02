"""The beginning of programs that must do without TensorFlow: it cannot be imported in them."""

from __future__ import annotations

WITHOUT_TENSORFLOW = '''
import sys


class Blocked:
    """A finder that stands before all others and finds no TensorFlow."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_text", "tf_keras"):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
try:
    import tensorflow
except ImportError:
    pass
else:
    sys.exit("the block does not work")
'''
