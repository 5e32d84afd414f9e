"""What visitors ask for and are told: all of the study but HTTP.

A visitor learns of an image its token alone, which says nothing: it is a
keyed hash of who asks which question and of the place on the page.
"""
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from jaxgen.study.pairs import Pairs, Trial, encoded
from jaxgen.study.record import Record

VISITOR = re.compile(r"[A-Za-z0-9_-]{4,64}")
LONGEST = 24 * 3600 * 1000  # milliseconds that an answer may take


class Refusal(Exception):
  """What is not answered: an HTTP status and a line, or what to do next."""

  def __init__(self, status: int, text: str, **more: Any):
    super().__init__(text)
    self.status, self.reply = status, {"error": text, **more}


class Desk:
  """Asks each visitor `num` questions in order, and records the answers."""

  def __init__(self, pairs: Pairs, record: Record, num: int, seconds: float):
    self.pairs, self.record = pairs, record
    self.num, self.seconds = num, seconds
    self.secret = secrets.token_bytes(32)
    self.lock = threading.Lock()
    self.tokens: dict[str, Path] = {}
    self.shown = Counter()  # more than once where a page was opened anew
    self.answered = Counter(row["visitor"] for row in record.rows)

  def visit(self, visitor: Any = None) -> dict[str, Any]:
    """Somebody comes, or comes back."""
    if visitor is None:
      visitor = secrets.token_urlsafe(9)
    self.known(visitor)
    reply = {"visitor": visitor, "trial": self.answered[visitor],
             "trials": self.num, "seconds": self.seconds}
    if reply["trial"] >= self.num:  # and no sooner
      reply["fooled"] = sum(row["fooled"] for row in self.record.rows
                            if row["visitor"] == visitor)
    return reply

  def trial(self, visitor: Any, trial: Any) -> dict[str, Any]:
    """Addresses of the images of the question that is next."""
    asked = self.due(visitor, trial)
    right = "fake" if asked.left == "real" else "real"
    places = {"left": asked.left, "right": right}
    if asked.low:
      places["low"] = "low"
    self.shown[visitor, trial] += 1
    reply = {}
    for place, kind in places.items():
      message = f"{visitor}/{trial}/{place}".encode()
      token = hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:32]
      self.tokens[token] = self.pairs.folders[kind] / getattr(asked, kind)
      reply[place] = f"/image/{token}"
    return reply

  def image(self, token: str) -> bytes:
    """A PNG file."""
    if token not in self.tokens:
      raise Refusal(404, "no such image")
    try:
      return encoded(self.tokens[token])
    except Exception as e:  # it could be read when the study began
      raise Refusal(410, "this image cannot be read any more") from e

  def choice(self, visitor: Any, trial: Any, choice: Any, ms: Any
             ) -> dict[str, Any]:
    """Records which side was taken for the photograph; what `visit` says."""
    if choice not in ("left", "right"):
      raise Refusal(400, "choice: want left or right")
    if type(ms) not in (int, float) or not 0 <= ms <= LONGEST:
      raise Refusal(400, "ms: want milliseconds")
    with self.lock:
      asked = self.due(visitor, trial)
      if not self.shown[visitor, trial]:  # or by a server that is no more
        raise Refusal(409, "this pair was not shown", **self.visit(visitor))
      self.record.append({
          "visitor": visitor, "trial": trial, "real": asked.real,
          "fake": asked.fake, "low": asked.low, "left": asked.left,
          "choice": choice,
          "fooled": (choice == "left") == (asked.left == "fake"),
          "ms": round(ms), "shown": self.shown[visitor, trial],
          "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
      self.answered[visitor] += 1
    return self.visit(visitor)

  def due(self, visitor: Any, trial: Any) -> Trial:
    """The question that is next, if that is what is meant."""
    self.known(visitor)
    due = self.answered[visitor]
    if type(trial) is not int or trial != due or due >= self.num:
      raise Refusal(409, "this question is not the next", **self.visit(visitor))
    return self.pairs.trials(visitor, self.num)[trial]

  def known(self, visitor: Any) -> None:
    """Refuses what cannot be a visitor."""
    if not isinstance(visitor, str) or not VISITOR.fullmatch(visitor):
      raise Refusal(400, "visitor: want 4 to 64 letters, digits, - or _")
