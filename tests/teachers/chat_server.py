"""A local stand-in for a vision-language model behind the OpenAI/vLLM protocol, faults included.

It sees: the pictures that tests send carry their quality in their mean red value, 0 to 255.
"""

import base64
import io
import json
import math
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

LEVELS = ("bad", "poor", "fair", "good", "excellent")
# Ids that the stand-in's tokenizer gives to first tokens; "excellent" is cut after "exc".
TOKENS = {"bad": 11, "poor": 12, "fair": 13, "good": 14, "exc": 15, "first": 21, "second": 22}


class ChatServer:
    """Serve until closed; attributes change its ways.

    Attributes:
        bias: added to the log-odds of whatever is shown first.
        logprobs: answer with log-probabilities.
        vllm: know /tokenize and logprob_token_ids.
        missing: level words left out of the top tokens.
        model: the name it serves.
        faults: share of requests answered with a fault, of `kinds`.
        delay: seconds that an answer takes.
    """

    def __init__(self, **ways):
        self.bias, self.logprobs, self.vllm, self.missing, self.mumbles = 0.0, True, False, (), False
        self.model, self.names_defects = "seer", True
        self.faults, self.kinds, self.delay, self.key = 0.0, ("429", "500", "reset", "half", "slow"), 0.0, None
        self.__dict__.update(ways)
        self.requests, self.answered, self.bodies = Counter(), 0, []
        self.busy, self.busiest, self.lock, self.random = 0, 0, threading.Lock(), random.Random(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                outer.serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # clients that were killed

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.requests[handler.path] += 1
        if handler.path == "/tokenize" and self.vllm:
            word = body["prompt"].strip().lower()
            token = "exc" if word == "excellent" else word
            return self.send(handler, 200, {"tokens": [TOKENS[token] + 100 * body["prompt"].startswith(" ")]})
        if handler.path != "/v1/chat/completions":
            return self.send(handler, 404, {"error": {"message": "no such route"}})
        if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return self.send(handler, 401, {"error": {"message": "invalid key"}})
        if body["model"] != self.model:
            return self.send(handler, 404, {"error": {"message": f"The model {body['model']} does not exist."}})
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            fault = self.random.choice(self.kinds) if self.random.random() < self.faults else None
        try:
            time.sleep(self.delay)
            if fault == "429":
                return self.send(handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
            if fault == "500":
                return self.send(handler, 500, {"error": {"message": "out of memory"}})
            if fault == "slow":
                time.sleep(1.5)
            if fault == "reset":
                handler.connection.close()
                return None
            answer = self.answer(body)
            if isinstance(answer, str):
                return self.send(handler, 400, {"error": {"message": answer}})
            if fault == "half":
                content = json.dumps(answer).encode()
                return self.send(handler, 200, content[: len(content) // 2])
            with self.lock:
                self.answered += 1
                self.bodies.append(body)
            return self.send(handler, 200, answer)
        finally:
            with self.lock:
                self.busy -= 1

    def answer(self, body):
        parts = body["messages"][-1]["content"]
        pictures = [see(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
        text = next(part["text"] for part in parts if part["type"] == "text")
        choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": ""}}
        if "sheet" in text:
            url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
            seen = see_sheet(url, int(text.split("shows ")[1].split()[0]))
            ranking = sorted(range(1, len(seen) + 1), key=lambda number: -seen[number - 1])
            scores = [round(100 * quality, 1) for quality in seen[: None if not self.mumbles else -1]]
            said = {"scores": scores, "confidences": [0.6] * len(seen), "ranking": ranking}
            if "defects" in text:
                said["defects"] = [defects_of(quality) for quality in seen]
            choice["message"]["content"] = f"```json\n{json.dumps(said)}\n```"
        elif "JSON" in text:
            if len(pictures) == 1:
                said = {"score": round(100 * pictures[0], 1), "confidence": 0.7} if "score" in text else {}
                if "defects" in text:
                    said["defects"] = defects_of(pictures[0]) if self.names_defects else "none"
            else:
                said = {"first": sigmoid(8 * (pictures[0] - pictures[1]) + self.bias)}
            choice["message"]["content"] = f"Sure! {json.dumps(said)}"
        else:
            if body.get("logprob_token_ids") and not self.vllm:
                return "unknown field logprob_token_ids"
            masses = self.masses(pictures)
            choice["message"]["content"] = max(masses, key=masses.get)
            if self.logprobs and body.get("logprobs"):
                choice["logprobs"] = {"content": [{"top_logprobs": self.top(masses, body)}]}
        return {
            "model": self.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 300 * len(pictures), "completion_tokens": 1},
        }

    def masses(self, pictures):
        if self.mumbles:
            return {"The": 0.9, "Well": 0.1}
        if len(pictures) == 2:
            p = sigmoid(8 * (pictures[0] - pictures[1]) + self.bias)
            return {"first": 0.98 * p, "second": 0.98 * (1 - p), "Both": 0.02}
        weights = [math.exp(-((4 * pictures[0] - i) ** 2)) for i in range(5)]
        total = sum(weights)
        # "excellent" is two tokens, capitals and spaces vary as they do in life.
        written = ("bad", " poor", "Fair", "good", "exc")
        masses = {w: 0.95 * x / total for w, x, name in zip(written, weights, LEVELS) if name not in self.missing}
        return {**masses, "The": 0.03, '"': 0.02}

    def top(self, masses, body):
        tokens = [{"token": token, "logprob": math.log(max(mass, 1e-30))} for token, mass in masses.items()]
        if body.get("return_tokens_as_token_ids"):
            known = {
                f"token_id:{TOKENS[t['token'].strip().lower()]}": t["logprob"]
                for t in tokens
                if t["token"].strip().lower() in TOKENS
            }
            tokens = [{"token": token, "logprob": logprob} for token, logprob in known.items()]
            tokens.append({"token": "token_id:121", "logprob": -9999.0})
        return sorted(tokens, key=lambda token: -token["logprob"])[: body["top_logprobs"]]

    def send(self, handler, status, answer, headers=None):
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


def defects_of(quality):
    return {"blur": 3 if quality < 0.2 else 1} if quality < 0.5 else {}


def see(url):
    content = base64.b64decode(url.split(",", 1)[1])
    return float(np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[..., 0].mean()) / 255


def see_sheet(url, count):
    """Return the quality in the middle of each cell of a contact sheet."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB"))
    columns = math.ceil(math.sqrt(count))
    cell = (pixels.shape[1] - 8) // columns - 8
    middles = [
        (8 + i // columns * (cell + 30) + 22 + cell // 2, 8 + i % columns * (cell + 8) + cell // 2)
        for i in range(count)
    ]
    return [float(pixels[y, x, 0]) / 255 for y, x in middles]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def picture(quality, side=32):
    """Return a picture in which the stand-in sees this quality, 0 to 1."""
    pixels = np.full((side, side, 3), 90, dtype=np.uint8)
    pixels[..., 0] = round(255 * quality)
    return Image.fromarray(pixels)
