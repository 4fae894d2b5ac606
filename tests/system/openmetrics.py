# SPDX-License-Identifier: LGPL-2.1-or-later
"""A strict reader of OpenMetrics 1.0.0 text, as far as gauges, counters and infos go.

parse(bytes) returns {family: Family}; whatever the specification forbids is a ValueError that says what and
where.
"""

import re
from collections import namedtuple

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# samples: {labels as a tuple of sorted (name, value) pairs: value}
Family = namedtuple("Family", "type unit help samples")

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\Z")
SUFFIXES = {"gauge": [""], "counter": ["_total", "_created"], "info": ["_info"]}


class Reader:
    def __init__(self):
        self.families = {}
        self.sample_names = {}  # name of a sample: its family
        self.name = None        # of the family that is being read
        self.got = set()        # TYPE, UNIT, HELP of it

    def metadata(self, line):
        parts = line.split(" ", 3)
        if len(parts) < 4 or parts[1] not in ("TYPE", "UNIT", "HELP"):
            raise ValueError("neither TYPE, UNIT, HELP with a name and a text, nor EOF")
        _, kind, name, text = parts
        if not NAME.match(name):
            raise ValueError("not a metric's name")
        if kind == "TYPE":
            self.begin(name, text)
        if name != self.name:
            raise ValueError("the family has not been begun by its TYPE, or is interleaved with another")
        if kind in self.got:
            raise ValueError(f"{kind} for the second time")
        if self.families[name].samples:
            raise ValueError("behind a sample")
        self.got.add(kind)
        if kind == "UNIT":
            if not name.endswith("_" + text):
                raise ValueError("the name does not end with the unit")
            self.families[name] = self.families[name]._replace(unit=text)
        elif kind == "HELP":
            if re.search(r'\\[^\\n"]|\\\Z', text):
                raise ValueError("an escape that is none")
            self.families[name] = self.families[name]._replace(help=text)

    def begin(self, name, kind):
        if kind not in SUFFIXES:
            raise ValueError("a type that is not gauge, counter or info")
        if name in self.families:
            raise ValueError("the family for the second time")
        if kind == "counter" and name.endswith("_total"):
            raise ValueError("a counter's family without _total, please")
        self.families[name] = Family(kind, None, None, {})
        self.name, self.got = name, set()
        for suffix in SUFFIXES[kind]:
            if name + suffix in self.sample_names:
                raise ValueError(f"its samples are called as those of {self.sample_names[name + suffix]}")
            self.sample_names[name + suffix] = name

    def labels(self, text):
        pairs, at = {}, 0
        while at < len(text):
            match = LABEL.match(text, at)
            if not match:
                raise ValueError("labels are not name=\"value\", with escapes of \\, \" and line feed only")
            name, value = match.groups()
            if name in pairs:
                raise ValueError(f"label {name} twice")
            if name.startswith("__"):
                raise ValueError(f"label {name} is reserved")
            pairs[name] = re.sub(r'\\(.)', lambda m: "\n" if m[1] == "n" else m[1], value)
            at = match.end()
            if at < len(text):
                if text[at] != "," or at + 1 == len(text):
                    raise ValueError("a comma between two labels, and none behind the last")
                at += 1
        return tuple(sorted(pairs.items()))

    def sample(self, line):
        match = re.match(r'([^ {]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? ([^ ]+)\Z', line)
        if not match:
            raise ValueError("not a sample: name{labels} value")
        name, labels, value = match[1], self.labels(match[2] or ""), match[3]
        if self.sample_names.get(name) != self.name:
            raise ValueError("not a sample of the family that was begun last")
        if not NUMBER.match(value):
            raise ValueError("not a number")
        family = self.families[self.name]
        if family.type == "counter" and float(value) < 0:
            raise ValueError("a counter below 0")
        if family.type == "info" and value != "1":
            raise ValueError("an info is 1")
        if labels in family.samples:
            raise ValueError("the sample for the second time")
        family.samples[labels] = float(value)


def parse(data):
    text = data.decode("utf-8")
    if not text.endswith("\n# EOF\n"):
        raise ValueError("it does not end with # EOF and a line feed")
    reader = Reader()
    for number, line in enumerate(text[:-len("# EOF\n")].split("\n")[:-1], 1):
        try:
            if line.startswith("#"):
                reader.metadata(line)
            else:
                reader.sample(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}: {line}") from None
    for name, family in reader.families.items():
        if not family.help:
            raise ValueError(f"{name} has no HELP")
    return reader.families
