# SPDX-License-Identifier: MIT
"""The lines that option_table.py makes: every two values that are taken meet, and each that is refused stands alone."""

import functools
import re
import shlex
import string
from typing import NamedTuple

from option_table import COMMANDS, NO_IMAGE, OPTIONS, ORDERS
from pairwise import Cover


EVERY_OPTION = {f"-{letter}" for letter in string.ascii_letters} | {
    match for option in OPTIONS.values() for words in option.taken for match in re.findall(r"(?<!\S)--[a-z-]+", words)}


class Line(NamedTuple):
    command: str
    words: tuple
    kind: str  # "written" as it is in the table, "refused", or "taken"

    def __str__(self):
        return shlex.join([self.command, *self.words])


def placed(command):
    """Options that stand among the operands."""
    return [name for name in re.findall(r"\{(.*?)\}", COMMANDS[command].operands) if name != "image"]


def compose(command, row, kind, order="options first"):
    """A line as text: @row has the words of each option, @kind is an image's format and name."""
    fmt, image = kind
    table = COMMANDS[command]
    # What starts with -- among the words of an image is an option, which can stand before "--".
    words = shlex.split(image)
    options = [row[name].replace("{fmt}", fmt) for name in table.options]
    options += [word for word in words if word.startswith("--")]
    operands = table.operands.replace("{image}", shlex.join(word for word in words if not word.startswith("--")))
    for name in placed(command):
        operands = operands.replace("{" + name + "}", row[name])
    return ORDERS[order].format(options=" ".join(options), operands=operands)


def taken(command, seed):
    table, kinds = COMMANDS[command], COMMANDS[command].kinds()
    names = [*table.options, *placed(command)]
    factors = {"image": list(kinds), "order": list(ORDERS), **{name: OPTIONS[name].taken for name in names}}
    never = [{factor: values for factor, values in rule.items()} for rule in table.never if set(rule) <= set(factors)]
    for row in Cover(factors, never, seed=seed).rows():
        yield compose(command, row, kinds[row["image"]], row["order"])


def alone(command):
    """Values that are refused, in a line that else is simple."""
    table, kinds = COMMANDS[command], COMMANDS[command].kinds()
    names = [*table.options, *placed(command)]
    plain = {name: OPTIONS[name].taken[0] for name in names}
    simple = [name for name, (fmt, _) in kinds.items() if fmt or not name][:1]
    for image in simple:
        for name in names:
            for number, words in enumerate(OPTIONS[name].refused):
                progress = {"progress": "-p"} if number % 2 and "progress" in names else {}
                yield compose(command, {**plain, **progress, name: words}, kinds[image])
    for image in NO_IMAGE if "{image}" in table.operands and not isinstance(table.images, dict) else []:
        yield compose(command, plain, ("", image))


def misused(command):
    """What is wrong with a line whatever its subcommand is."""
    table, kinds = COMMANDS[command], COMMANDS[command].kinds()
    names = [*table.options, *placed(command)]
    plain = {name: OPTIONS[name].taken[0] for name in names}
    good = compose(command, plain, next(iter(kinds.values())))
    yield from [good + " more", good + " -", good + " --frobnicate", "-Z " + good, "", "--", "-", good + " -q -q", "-U -U " + good,
                good + " -", "-- " + good, good + " --output", good + " --o=json", good + " --=x", "--- " + good,
                "--object " + good, good + " -h=x", good + " -f foo -f raw", good + " -t foo -t none", good + " -T foo -T none",
                good + " --output=xml --output=json", good + " -r foo -r 1G", good + " -F foo -F qcow2"]
    if "progress" in names:
        yield from ["-p " + good.replace(image, "nope") for image in good.split() if "." in image]
        yield from ["-p " + good + " more", "-p -t foo " + good, "-p -f foo " + good, "-qp " + good, "-pq " + good]
    # Options without the value that they take, and those of other subcommands
    for option in sorted(EVERY_OPTION):
        yield f"{good} {option}"


@functools.cache
def lines(command, seed):
    """All lines of a subcommand, each once."""
    found = {}
    for texts, kind in ((COMMANDS[command].lines, "written"), (alone(command), "refused"), (misused(command), "refused"),
                        (taken(command, seed), "taken")):
        for text in texts:
            words = tuple(shlex.split(text))
            found.setdefault(words, Line(command, words, kind))
    return list(found.values())
