"""A stand-in for the Python engine that keeps every byte of its talk with Java. Standard library.

Java runs it as it runs the stock engine. It answers by rules of its own, written by hand from the
protocol's description, so that what it records owes nothing to our codec. The record goes to the
file that LMI_RECORD names: a JSON line for argv, then one for each message, as hex.

What a request's body asks for: {"tokens": n} is n chunks, {"stream": n} is a stream in a plain
reply, {"code": c} an error, {"break": true} a reply that fails the whole rolling batch.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    properties: dict[str, str]
    content: list[tuple[str | None, bytes]]


class Talk:
    """The connection: messages in, raw replies out, all of it on record."""

    def __init__(self, connection: socket.socket, record: str) -> None:
        self._connection = connection
        self._record = record
        self._raw = b""
        self.wide = True

    def messages(self) -> Iterator[Message]:
        first = True
        while self._connection.recv(1, socket.MSG_PEEK):
            self._raw = b""
            count = self._read(2)
            if first:
                start = self._connection.recv(2, socket.MSG_PEEK | socket.MSG_WAITALL)
                self.wide = start == b"\0\0"
                first = False
            properties = {}
            for _ in range(int.from_bytes(count, "big")):
                key, value = self._text(), self._text()
                properties[key or ""] = value or ""
            content = []
            for _ in range(struct.unpack(">h", self._read(2))[0]):
                key = self._text()
                content.append((key, self._read(struct.unpack(">i", self._read(4))[0])))
            self._note("java", self._raw)
            yield Message(properties, content)

    def send(self, reply: bytes) -> None:
        self._note("engine", reply)
        self._connection.sendall(reply)

    def _take(self, data: bytes) -> bytes:
        self._raw += data
        return data

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise ConnectionError("Java left within a message")
            data += part
        return self._take(data)

    def _text(self) -> str | None:
        form, width = (">i", 4) if self.wide else (">h", 2)
        size = struct.unpack(form, self._read(width))[0]
        return None if size < 0 else self._read(size).decode()

    def _note(self, sender: str, data: bytes) -> None:
        with open(self._record, "a") as file:
            file.write(json.dumps({"from": sender, "hex": data.hex()}) + "\n")


class Replies:
    """The bytes of replies, in the width that Java speaks."""

    def __init__(self, wide: bool) -> None:
        self._length = ">i" if wide else ">h"

    def text(self, value: str) -> bytes:
        data = value.encode()
        return struct.pack(self._length, len(data)) + data

    def table(self, values: Mapping[str, str]) -> bytes:
        pairs = b"".join(self.text(key) + self.text(value) for key, value in values.items())
        return struct.pack(">h", len(values)) + pairs

    def plain(
        self,
        code: int,
        message: str,
        properties: Mapping[str, str],
        content: Sequence[tuple[str, bytes]],
    ) -> bytes:
        items = b"".join(
            self.text(key) + struct.pack(">i", len(value)) + value for key, value in content
        )
        head = struct.pack(">h", code) + self.text(message) + self.table(properties)
        return head + struct.pack(">h", len(content)) + items

    def stream(self, chunks: Sequence[bytes]) -> list[bytes]:
        head = struct.pack(">h", 200) + self.text("OK")
        head += self.table({"content-type": "application/jsonlines"}) + struct.pack(">h", -1)
        frames = [b"\1" + struct.pack(">i", len(chunk)) + chunk for chunk in chunks]
        return [head, *frames, b"\0" * 5]


def answer_plain(talk: Talk, replies: Replies, message: Message) -> None:
    if "batch_size" in message.properties:
        content = [(f"batch_{key[6:9]}.data", value) for key, value in message.content if key]
        talk.send(replies.plain(200, "OK", {}, content))
        return
    body = json.loads(message.content[0][1])
    if "stream" in body:
        for frame in replies.stream([f"chunk {i}\n".encode() for i in range(body["stream"])]):
            talk.send(frame)
    elif "code" in body:
        error = [("data", b'{"error":"asked for"}')]
        talk.send(replies.plain(body["code"], "asked for", {"content-type": "a/b"}, error))
    else:
        talk.send(replies.plain(200, "OK", {"X-Seen": "yes"}, [("data", message.content[0][1])]))


class Rolling:
    """The live requests by position, each with the tokens it still gets."""

    def __init__(self) -> None:
        self._left: list[int] = []

    def answer(self, talk: Talk, replies: Replies, message: Message) -> None:
        size = int(message.properties["batch_size"])
        if "reset_rollingbatch" in message.properties:
            self._left = []
        data = [value for key, value in message.content if key and key.endswith(".data")]
        bodies = [json.loads(value) for value in data[len(self._left) :]]
        if any("break" in body for body in bodies):
            self._left = []
            talk.send(replies.plain(500, "asked for", {}, []))
            return
        self._left += [-body["code"] if "code" in body else body["tokens"] for body in bodies]
        items, kept, headers = [], [], {}
        for index, left in enumerate(self._left):
            if left < 0:
                table = {"data": "", "last": "true", "code": str(-left), "error": "asked for"}
            else:
                table = {"data": f"t{left} ", "last": str(left == 1).lower()}
            if left > 1:
                kept.append(left - 1)
            headers[f"batch_{index}_Content-Type"] = "application/jsonlines"
            items.append(("data", replies.table(table)))
        assert len(items) == size, (len(items), size)
        self._left = kept
        talk.send(replies.plain(200, "OK", headers, items))


def answer_async(talk: Talk, replies: Replies, message: Message) -> None:
    track = {"request_tracking_id": message.properties["request_tracking_id"]}
    body = json.loads(message.content[0][1])
    if "code" in body:
        table = {"data": "", "last": "true", "code": str(body["code"]), "error": "asked for"}
        talk.send(replies.plain(200, "OK", track, [("data", replies.table(table))]))
        return
    for left in range(body["tokens"], 0, -1):
        table = {"data": f"t{left} ", "last": str(left == 1).lower()}
        talk.send(replies.plain(200, "OK", track, [("data", replies.table(table))]))


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--sock-name")
    parser.add_argument("--async-mode", action="store_true")
    arguments, _ = parser.parse_known_args()
    record = os.environ["LMI_RECORD"]
    with open(record, "a") as file:
        file.write(json.dumps({"argv": sys.argv[1:]}) + "\n")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(arguments.sock_name)
    listener.listen(1)
    listener.settimeout(10.0)  # Java may start us and never come
    print("Python engine started.", flush=True)
    connection, _ = listener.accept()
    connection.settimeout(None)
    talk, rolling = Talk(connection, record), Rolling()
    for message in talk.messages():
        replies = Replies(talk.wide)
        if not message.content and "batch_size" not in message.properties:
            talk.send(replies.plain(200, "OK", {}, []))
        elif "request_tracking_id" in message.properties:
            answer_async(talk, replies, message)
        elif os.environ["LMI_RECORD_MODE"] == "rolling" and "batch_size" in message.properties:
            rolling.answer(talk, replies, message)
        else:
            answer_plain(talk, replies, message)


if __name__ == "__main__":
    main()
