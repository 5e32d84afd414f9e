"""Reads every file of a folder within limits, and prints how each ended.

  python tests/helpers/reader.py FOLDER SECONDS MEGABYTES

A line of JSON for each: its name, how it ended, the message, seconds.
"""

import json
import os
import resource
import signal
import sys
import time

from jaxgen.errors import UserError
from jaxgen.interop import tensor_files


class Late(BaseException):
  """A file took too long."""


def late(*_):
  raise Late


def main(folder, seconds, megabytes):
  resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2)
  signal.signal(signal.SIGALRM, late)
  for name in sorted(os.listdir(folder)):
    print(json.dumps(name), end=" ", flush=True)  # whom to blame for a crash
    begin = time.monotonic()
    signal.alarm(seconds)
    try:
      for tensors in tensor_files.sets(os.path.join(folder, name)).values():
        for tensor in tensors.values():
          tensor.read()
      end = "read", ""
    except UserError as e:
      end = "refused", str(e)
    except BaseException as e:  # which is what is wrong
      end = type(e).__name__, ascii(e)[:300]
    signal.alarm(0)
    print(json.dumps([*end, time.monotonic() - begin]), flush=True)


if __name__ == "__main__":
  main(sys.argv[1], *map(int, sys.argv[2:]))
