"""A bucket for the tests of this folder, each with a folder of its own in it."""

import itertools

import pytest
from bucket_server import Bucket, Faults

from jaxgen.bucket import objects

numbers = itertools.count()


@pytest.fixture(scope="session")
def server():
  """One server for all tests of a worker."""
  with Bucket() as bucket:
    yield bucket


@pytest.fixture
def bucket(server):
  """It, with no faults; `bucket.folder` is an address where nothing is."""
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
