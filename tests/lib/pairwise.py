# SPDX-License-Identifier: MIT
"""Rows in which every two values of every two factors meet: a cover of a few hundred instead of all combinations."""

import itertools
import random

CANDIDATES = 2  # rows drawn for each that is taken


class Cover:
    """@factors: {name: values}; @never: what no row is, as the values of some factors."""

    def __init__(self, factors, never, times=1, seed=0):
        self.factors, self.rng = factors, random.Random(seed)
        self.rules = {name: [rule for rule in never if name in rule] for name in factors}
        items = [(name, value) for name in factors for value in factors[name]]
        # How often each two still have to meet, both ways round; what can never meet is found on the way.
        self.need = {a: {b: times for b in items if a[0] != b[0]} for a in items}

    def allowed(self, row, name):
        """The values of another factor that may come to @row."""
        return [value for value in self.factors[name] if not any(
            value in rule[name] and all(other == name or row.get(other) in rule[other] for other in rule)
            for rule in self.rules[name])]

    def gain(self, row, item):
        """How many pairs that are needed @item brings to @row."""
        needed = self.need[item]
        return sum(other in needed for other in row.items())

    def complete(self, row):
        """@row with a value of each factor that it lacks; None: there are none that are allowed."""
        choices = {name: self.allowed(row, name) for name in self.factors if name not in row}
        if not choices:
            return row
        fewest = min(map(len, choices.values()))
        name = self.rng.choice([name for name in choices if len(choices[name]) == fewest])
        values = self.rng.sample(choices[name], len(choices[name]))
        for value in sorted(values, key=lambda value: -self.gain(row, (name, value))):
            found = self.complete({**row, name: value})
            if found:
                return found
        return None

    def begin(self, a, b):
        """A row with a pair, and much that is needed; None: the two can never meet."""
        if b[1] not in self.allowed(dict([a]), b[0]):
            return None
        rows = filter(None, (self.complete(dict([a, b])) for _ in range(CANDIDATES)))
        return max(rows, key=lambda row: sum(self.gain(row, item) for item in row.items()), default=None)

    def rows(self):
        while any(self.need.values()):
            a = max(self.need, key=lambda item: sum(self.need[item].values()))
            b = max(self.need[a], key=self.need[a].get)
            row = self.begin(a, b)
            for x, y in itertools.permutations(row.items(), 2) if row else [(a, b), (b, a)]:
                left = self.need[x].pop(y, 0) - 1
                if left > 0 and row:
                    self.need[x][y] = left
            if row:
                yield {name: row[name] for name in self.factors}
