"""Protocol buffers read by field number, without the code that TensorFlow generates for them."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet


class Message:
    """An encoded message.

    Args:
        content: its bytes.

    Raises:
        google.protobuf.message.DecodeError: the bytes are no message.
    """

    def __init__(self, content: bytes) -> None:
        # To a message without fields, every field is unknown.
        self._fields = [
            (f.field_number, f.data) for f in UnknownFieldSet(Empty.FromString(content))
        ]

    def all(self, number: int) -> list:
        """Returns every value of a field: integers, or bytes."""
        return [value for found, value in self._fields if found == number]

    def one(self, number: int, default: int | bytes) -> int | bytes:
        """Returns the value of a field, as a reader takes it: the last, if there are several."""
        return (self.all(number) or [default])[-1]

    def text(self, number: int) -> str:
        """Returns the value of a field that holds text."""
        return self.one(number, b"").decode()

    def message(self, number: int) -> Message:
        """Returns the value of a field that is a message."""
        return Message(self.one(number, b""))

    def messages(self, number: int) -> Iterator[Message]:
        """Yields every value of a field that is a message."""
        return map(Message, self.all(number))

    def mapping(self, number: int) -> dict[str, Message]:
        """Returns a map from text to messages."""
        return {entry.text(1): entry.message(2) for entry in self.messages(number)}
