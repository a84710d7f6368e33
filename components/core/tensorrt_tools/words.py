"""What TensorRT's parser and builder print, without what only their authors read: file names, conditions, prefixes."""

import re

LIMIT = 300
_LOG_PREFIX = re.compile(r"^(\[[^\]]*\] )?\[TRT\] \[[EF]\] |^(IBuilder::\w+|\[[\w.:]+\]|\w+): ?(?=Error Code)")
_PLACE = re.compile(r" In \w+ at /\S+:\d+\)?")
_CHECK = re.compile(r'^.*?\)? && ((?:"[^"]*"\s*)+)$')
"""The parser's checks print as ``(condition) && "sentence"``."""
_ASSERTION = re.compile(r"^Assertion failed: (?P<condition>.*?): (?P<sentence>[A-Z].*)$")
_INVALID_NODE = re.compile(r"^Invalid Node - .*? (?:(?:\w+::)?\w+: |\[[\w.:]+\] )(?=Error Code)")
_FOLLOW_UP = re.compile(r" (\[checkMacros\.cpp|ITensor::\w+: Error Code).*$")
"""A machine without a driver says so after every error, and shapes that fail after the first one are its echo."""
_CODE = re.compile(r"^(?:\[[\w.:]+\] )?Error Code \d+: [A-Z][A-Za-z]* ?[A-Za-z]* ?Error ")


def plain(words: str) -> str:
    """The sentence in an error of the parser or the builder, as one line."""
    text = " ".join(words.split())
    text = _LOG_PREFIX.sub("", text)
    text = _INVALID_NODE.sub("", text)
    text = _FOLLOW_UP.sub("", text)
    if match := _CHECK.match(text):
        text = " ".join("".join(re.findall(r'"([^"]*)"', match.group(1))).split())
    elif match := _ASSERTION.match(text):
        text = match.group("sentence")
    text = _PLACE.sub("", text)
    text = re.sub(r"^\[[\w.]+::\w+::\d+\] ?", "", text)
    text = _CODE.sub("", text)
    if text.startswith("(") and text.count("(") > text.count(")"):
        text = text[1:]
    elif text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    text = text.strip()
    return "the parser has no importer for this operator" if text in ("false", "") else text


def shortened_words(words: str) -> str:
    """At most `LIMIT` characters of them."""
    return words if len(words) <= LIMIT else f"{words[: LIMIT - 3]}..."
