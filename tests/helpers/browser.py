"""A real browser without a window, driven over its DevTools protocol."""

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

PATH = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FLAGS = (
  "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
  "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars "
  "--remote-debugging-port=0"
).split()
CODES = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "f": 70, "j": 74}
CODES |= {" ": 32, "4": 52, "a": 65, "b": 66}


class Browser:
  """One page of a browser of its own; a context."""

  def __enter__(self):
    self.home = tempfile.mkdtemp(prefix="browser-")
    self.process = subprocess.Popen(
      [PATH, *FLAGS, f"--user-data-dir={self.home}", "about:blank"],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for line in self.process.stderr:
      if match := re.search(r"listening on ws://([\d.]+):(\d+)", line):
        break
    host, port = match[1], int(match[2])
    with urllib.request.urlopen(f"http://{host}:{port}/json/list") as reply:
      page = next(p for p in json.load(reply) if p["type"] == "page")
    path = page["webSocketDebuggerUrl"].partition(str(port))[2]
    self.socket = socket.create_connection((host, port), timeout=30)
    self.file = self.socket.makefile("rb")
    key = base64.b64encode(os.urandom(16)).decode()
    head = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket"]
    head += ["Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    self.socket.sendall("\r\n".join([*head, "", ""]).encode())
    while self.file.readline() not in (b"\r\n", b""):
      pass
    self.calls = 0
    return self

  def __exit__(self, *_):
    self.socket.close()
    self.process.terminate()
    self.process.wait(30)
    self.process.stderr.close()
    shutil.rmtree(self.home, ignore_errors=True)

  def call(self, method, **params):
    """One command of the protocol -> its result."""
    self.calls += 1
    data = json.dumps({"id": self.calls, "method": method, "params": params})
    data, mask = data.encode(), os.urandom(4)
    long = len(data) >= 126
    size = struct.pack(">BH", 0xFE, len(data)) if long else bytes([0x80 | len(data)])
    self.socket.sendall(b"\x81" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
    while (reply := json.loads(self.read())).get("id") != self.calls:
      pass  # events
    assert "error" not in reply, reply
    return reply["result"]

  def read(self):
    """One message, of however many frames."""
    data, last = b"", False
    while not last:
      first, size = self.file.read(2)
      last = bool(first & 0x80)
      if size >= 126:
        form = ">H" if size == 126 else ">Q"
        (size,) = struct.unpack(form, self.file.read(struct.calcsize(form)))
      data += self.file.read(size)
    return data

  def look(self, width, height, dark=False):
    """Sets the window's size, and whether it is dark."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    self.call("Emulation.setDeviceMetricsOverride", **screen)
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.call("Emulation.setEmulatedMedia", features=[theme])

  def go(self, url):
    self.call("Page.navigate", url=url)

  def run(self, script):
    """The value of an expression on the page."""
    reply = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
    assert "exceptionDetails" not in reply, reply
    return reply["result"].get("value")

  def wait(self, condition, seconds=30):
    """Until an expression is true; one that fails is not, yet."""
    end = time.monotonic() + seconds
    while not self.run(f"(() => {{ try {{ return Boolean({condition}) }} catch {{}} }})()"):
      assert time.monotonic() < end, (condition, self.run("document.documentElement.outerHTML"))
      time.sleep(0.02)

  def press(self, key):
    """A key goes down and up."""
    code = {"key": key, "windowsVirtualKeyCode": CODES[key]}
    text = {"text": key} if len(key) == 1 else {}
    self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
    self.call("Input.dispatchKeyEvent", type="keyUp", **code)

  def shot(self, path):
    """A picture of what is seen."""
    data = self.call("Page.captureScreenshot", format="png")["data"]
    with open(path, "wb") as file:
      file.write(base64.b64decode(data))
