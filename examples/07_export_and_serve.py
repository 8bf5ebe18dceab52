"""From training to serving: an ONNX file that converts raw numbers to labels, over HTTP.

The server needs onnxruntime, and gpumlp is not involved: the standardisation and the names of the
classes are in the file.
"""

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime

import gpumlp
from gpumlp import data
from gpumlp.interop.onnx import export_onnx

train, test = data.split(data.load("breast_cancer"), validation=0.3)
preparation = data.Preparation.of(train, x=True, y=False)
net = gpumlp.MLP([30, 64, 2], activation="gelu")
gpumlp.Trainer(net, lr=3e-3, batch_size=32).fit(preparation.inputs(train.x), train.y, epochs=15)
export_onnx(net, "tumours.onnx", preparation=preparation)

session = onnxruntime.InferenceSession("tumours.onnx")
FEATURES = session.get_inputs()[0].shape[1]


class Endpoint(BaseHTTPRequestHandler):
    """Answers a POST of rows of numbers, as JSON, with the label and probabilities of each row."""

    def do_POST(self):
        """Answer one request."""
        try:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            x = np.array(rows, np.float64).reshape(len(rows), FEATURES)
        except (ValueError, TypeError):
            self.send_error(400, f"send rows of {FEATURES} numbers")
            return
        label, p = session.run(["label", "probabilities"], {"x": x})
        answer = json.dumps({"label": label.tolist(), "probabilities": p.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        """Log nothing."""


with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with urllib.request.urlopen(url, json.dumps(test.x.tolist()).encode()) as reply:
        answer = json.load(reply)
    try:
        urllib.request.urlopen(url, b"[[1, 2, 3]]")
    except urllib.error.HTTPError as error:
        refused = str(error)
        error.close()
    server.shutdown()

truth = np.array(test.classes)[test.y]
p = net.predict(preparation.inputs(test.x))
print(f"sent {len(truth)} tumours; the first is {answer['label'][0]}, {answer['probabilities'][0]}")
print(f"accuracy: {np.mean(np.array(answer['label']) == truth):.3f}")
difference = np.abs(np.array(answer["probabilities"]) - p).max()
print(f"largest difference from net.predict: {difference:.0e}")
print(f"a row of three numbers is refused: {refused}")
