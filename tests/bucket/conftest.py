"""A bucket for the tests of this folder, each with a folder of its own in it."""

import contextlib
import functools
import itertools

import pytest
from bucket_server import Bucket, Faults

from jaxgen.bucket import objects

numbers = itertools.count()


@pytest.fixture(scope="session")
def servers():
  """One server of a kind for all tests of a worker, started when it is asked for."""
  with contextlib.ExitStack() as stack:
    yield functools.cache(lambda kind: stack.enter_context(Bucket(kind=kind)))


@pytest.fixture
def bucket(servers, request):
  """One with no faults; `bucket.folder` is an address where nothing is.

  On gs://, or where the test is parametrised to have it.
  """
  server = servers(getattr(request, "param", "gs"))
  server.folder = f"{server.address}/test-{next(numbers)}"
  yield server
  server.faults = Faults()


@pytest.fixture
def impatient(monkeypatch):
  """Requests are given up within a second; stores are opened anew."""
  yield from trying(monkeypatch, 2)


@pytest.fixture
def quick(monkeypatch):
  """Requests are made again as often as ever, and sooner."""
  yield from trying(monkeypatch, 32)


def trying(monkeypatch, times):
  retries = {"max_retries": times, "initial_delay": "20ms", "max_delay": "100ms"}
  monkeypatch.setattr(objects, "RETRIES", retries)
  monkeypatch.setattr(objects, "FIRST_RETRIES", retries)
  objects.store.cache_clear()
  yield
  objects.store.cache_clear()
