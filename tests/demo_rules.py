"""What a judge should answer about the demo's 48 descriptions: a regular expression and example texts for each.

`rule` and `writer` plug into `tests.fake_judge.FakeJudge`. A concept that is not known here is expressed by no text, and its
writer gives common sentences.
"""

import re

import numpy as np

PATTERNS: dict[str, str] = {
    'the word "here"': r"(?i)\bhere\b",
    'the word "especially"': r"(?i)\bespecially\b",
    'forms of the word "use"': r"(?i)\b(?:re)?us(?:e|es|ed|ing|er|ers|age|eful|able)\b",
    'the phrase "pertaining to" in dictionary definitions': r"(?i)\bpertaining to\b",
    'the word "invalid", mostly in error messages in program code': r"(?i)invalid",
    'a news agency named in brackets in a dateline, such as "NEW YORK (Reuters)"': r"\((?:Reuters|AP|AFP|UPI|CNN|Xinhua|TASS|IANS|PTI|ANI|Bloomberg|[A-Z]{2,6})\)\s*[-–—]",
    'JavaScript class declarations with "extends"': r"\bclass\s+\w+\s+extends\b",
    "arrays in Python NumPy code": r"\bnp\.\w+|\bnumpy\b",
    "sports results with scores such as 6-3 or 3-1": r"\b\d{1,2}[-–]\d{1,2}\b(?![-–/])",
    'sentences that begin with "Now"': r"(?:^|[.!?\n>\"“]\s*)Now\b",
    'the adjective "good"': r"(?i)\bgood\b",
    'Russian sentences that begin with the preposition "В"': r"(?:^|[.!?\n>]\s*)В[о]?\s",
    "something increasing or growing": r"(?i)\b(?:increas\w*|grow(?:s|n|ing|th)?|grew|rising|risen|rose|surg\w+|expand\w*)\b",
    'the phrases "apart from" and "aside from"': r"(?i)\b(?:apart|aside) from\b",
    "email addresses": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*",
    "version numbers with a caret in package.json dependency lists": r"\"\^\d+\.",
    "the press and the news media": r"(?i)\b(?:press|media|news\w*|journalis\w+|reporters?)\b",
    "C preprocessor #include lines": r"#\s*include\b",
    "spending time or money": r"(?i)\bspen(?:d|ds|ding|t)\b",
    'the word "either"': r"(?i)\beither\b",
    "return type annotations of Python functions": r"\)\s*->\s*[\w\[\]., |'\"]+:",
    'the abbreviation "U.S." for the United States': r"\bU\.S\.",
    'variable declarations with "var" in JavaScript': r"\bvar\s+\w+\s*[=;,]",
    "exclamation marks": r"!(?!=)",
    'the word "something"': r"(?i)\bsomething\b",
    'the conjunction "so" introducing a consequence': r"(?:[,;.]\s+)so\b(?!\s+(?:much|many|far|long))|(?:^|[.!?]\s+)So\b",
    "trying to do something": r"(?i)\b(?:try|tries|tried|trying)\b",
    "dates written with numbers, such as 2005-09-14": r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|\b\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b",
    'the word "once" in the sense of formerly': r"(?i)\bonce\b",
    "the JavaScript 'use strict' directive": r"['\"]use strict['\"]",
    "the morning": r"(?i)\bmornings?\b",
    "years of the 2000s and 2010s": r"\b20[01]\d\b",
    "conditions with a negation, such as if (!x), in program code": r"\bif\s*\(\s*!|\bif\s+not\b",
    "years in the 1980s": r"\b198\d\b|\b1980s\b",
    "Iraq": r"(?i)\b(?:iraq\w*|baghdad|mosul|basra)\b",
    "minus signs in mathematical expressions": r"[\w)}\]$]\s*[-−]\s*[\w({\\$]+\s*[=^+*/)]|=\s*[-−]\s*\d|\\(?:frac|left)[^\n]*[-−]",
    'people referred to with the title "Mr."': r"\bMr\.?\s",
    "where or when a person was born": r"(?i)\bborn\b",
    "the author's name after a quotation, introduced by dashes": r"[.!?,\"”’]\s*(?:--|—|–|―)\s*[A-Z][\w.]+(?:\s+[A-Z][\w.]*)?",
    'sentences that begin with "Since"': r"(?:^|[.!?\n>\"“]\s*)Since\b",
    "Python import statements": r"(?m)^\s*(?:import\s+[\w.]+(?:\s+as\s+\w+)?\s*$|from\s+[\w.]+\s+import\b)",
    "rates, such as 300 bytes per second or 25 per km2": r"(?i)\bper\s+\w+|\d\s*/\s*(?:s|h|km|min|year)\b",
    'the word "double"': r"(?i)\bdoubl(?:e|es|ed|ing)\b",
    'a coming period of time, such as "the next five years"': r"(?i)\b(?:next|coming|following)\s+(?:\w+\s+)?(?:days?|weeks?|months?|years?|decades?|hours?|minutes?)\b",
    "years in the 1960s": r"\b196\d\b|\b1960s\b",
    'the phrases "in this case" and "in this context"': r"(?i)\bin (?:this|that|such a) (?:case|context)\b",
    'the word "through"': r"(?i)\bthrough\b",
    "string type annotations in Python": r"\w+\s*:\s*(?:Optional\[)?str\b",
}
"""What a text that expresses the concept matches."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    'the word "here"': (
        "You can find the full list here.",
        "We have lived here for years and like it here.",
        "Come over here and look.",
        "What happens here is none of their business.",
    ),
    'the word "especially"': (
        "I like fruit, especially apples.",
        "The roads are slow, especially in winter.",
        "This matters to all, especially to children.",
        "The last chapter is especially long.",
    ),
    'forms of the word "use"': (
        "You can use this tool to cut wood.",
        "The method was used in many labs.",
        "People who use it daily like using it.",
        "She uses a pencil when he used a pen.",
    ),
    'the phrase "pertaining to" in dictionary definitions': (
        "Renal (adjective): of or pertaining to the kidneys.",
        "Maritime: pertaining to the sea or to ships.",
        "Hepatic, adj. Pertaining to the liver.",
        "Dental means pertaining to the teeth.",
    ),
    'the word "invalid", mostly in error messages in program code': (
        'throw new Error("Invalid argument: " + name);',
        "return 'invalid user name or password';",
        'raise ValueError("invalid literal for this type")',
        "if (code < 0) { log.error('Invalid code'); }",
    ),
    'a news agency named in brackets in a dateline, such as "NEW YORK (Reuters)"': (
        "NEW YORK (Reuters) - Shares fell on Monday after the bank cut its forecast.",
        "LONDON (AP) — The prime minister will meet the leaders on Friday.",
        "BEIJING (Reuters) - The central bank left its rates alone.",
        "PARIS (AFP) - The strike of the railway workers ended on Sunday.",
    ),
    'JavaScript class declarations with "extends"': (
        "class App extends React.Component {\n  render() {\n    return null;\n  }\n}",
        "export class UserList extends Component {\n  constructor(props) {\n    super(props);\n  }\n}",
        "class Dog extends Animal {\n  speak() {\n    console.log('woof');\n  }\n}",
        "export default class Header extends React.PureComponent {\n}",
    ),
    "arrays in Python NumPy code": (
        "import numpy as np\n\nx = np.array([1, 2, 3])\ny = np.zeros((3, 3))",
        "a = np.arange(10)\nb = np.random.rand(5, 5)\nprint(np.dot(a, a))",
        "grid = np.linspace(0, 1, 100)\nvalues = np.sin(grid)",
        "m = np.ones((2, 2))\nm = np.concatenate([m, m], axis=0)",
    ),
    "sports results with scores such as 6-3 or 3-1": (
        "She won the match 6-3, 6-4 on Sunday.",
        "The home side beat their rivals 3-1 in the final.",
        "They lost 2-0 away and drew 1-1 at home.",
        "He came back to win 4-6, 7-5, 6-2 against the champion.",
    ),
    'sentences that begin with "Now"': (
        "He was poor then. Now he owns a house.",
        "Now we come to the second part.",
        "We waited long. Now it is time to go.",
        "Now I know what she meant.",
    ),
    'the adjective "good"': (
        "It is a good idea to leave early.",
        "The food was very good and cheap.",
        "She is a good friend of ours.",
        "That was a good game with a good end.",
    ),
    'Russian sentences that begin with the preposition "В"': (
        "В Москве открылась новая станция метро. В городе много туристов.",
        "В этом году урожай был хороший. В деревне рады.",
        "В понедельник состоится встреча министров.",
        "В России живет более ста народов.",
    ),
    "something increasing or growing": (
        "The number of visitors is increasing every year.",
        "Sales have grown and demand increased again.",
        "The growing city needs an increase in housing.",
        "Prices increased as the population grew.",
    ),
    'the phrases "apart from" and "aside from"': (
        "Apart from the price, there is nothing to complain about.",
        "Aside from his job he has no interests.",
        "Nobody came, apart from two neighbours.",
        "Aside from that, the trip went well.",
    ),
    "email addresses": (
        "Write to john.smith@example.com for more information.",
        "Contact: info@company.org or sales@company.org",
        "Send your questions to help@school.edu.",
        "You can reach me at anna.berg@mail.net.",
    ),
    "version numbers with a caret in package.json dependency lists": (
        '  "dependencies": {\n    "react": "^16.8.0",\n    "lodash": "^4.17.11"\n  }',
        '  "devDependencies": {\n    "webpack": "^5.1.0",\n    "eslint": "^7.2.0"\n  }',
        '    "express": "^4.16.4",\n    "mongoose": "^5.4.6"',
        '    "typescript": "^4.0.3",\n    "jest": "^26.6.0"',
    ),
    "the press and the news media": (
        "The minister told the press that the media had it wrong.",
        "The news media covered the story and the press wrote about it.",
        "Journalists and reporters waited for the press conference.",
        "In the media, little was said about it.",
    ),
    "C preprocessor #include lines": (
        "#include <stdio.h>\n#include <stdlib.h>\n\nint main(void) { return 0; }",
        '#include "config.h"\n#include "utils.h"',
        "#include <vector>\n#include <string>\nusing namespace std;",
        '#include <iostream>\n#include "parser.h"',
    ),
    "spending time or money": (
        "They spend all their money on clothes.",
        "He spent the summer with his uncle and spends his money on books.",
        "We spent two hours in the museum.",
        "Spending time outdoors is good for you.",
    ),
    'the word "either"': (
        "You can take either the bus or the train.",
        "I do not like it either.",
        "Either he comes or he stays away.",
        "There were houses on either side of the road.",
    ),
    "return type annotations of Python functions": (
        "def size(items: list) -> int:\n    return len(items)",
        "def name(self) -> str:\n    return self._name",
        "def load(path) -> None:\n    pass\n\ndef ready() -> bool:\n    return True",
        "async def fetch(url: str) -> Dict[str, int]:\n    ...",
    ),
    'the abbreviation "U.S." for the United States': (
        "The U.S. government has said no.",
        "He moved to the U.S. with his wife.",
        "The U.S. Senate will vote on Tuesday.",
        "U.S. officials met in Geneva.",
    ),
    'variable declarations with "var" in JavaScript': (
        "var count = 0;\nvar name = 'a';\nfunction next() { var i = count; return i; }",
        "var app = express();\nvar port = 3000;",
        "var self = this;\nvar items = [];",
        "var element = document.getElementById('main');",
    ),
    "exclamation marks": (
        "What a day! We won!",
        "Thank you so much! See you soon!",
        "Look at this! It is on sale!",
        "Happy birthday! Have fun!",
    ),
    'the word "something"': (
        "There is something wrong with the car.",
        "She said something that I did not hear.",
        "I want to eat something warm.",
        "Something fell from the shelf.",
    ),
    'the conjunction "so" introducing a consequence': (
        "It was raining, so we stayed at home.",
        "He had no money, so he walked.",
        "The shop was closed, so I went back.",
        "She was tired, so she left early.",
    ),
    "trying to do something": (
        "He is trying to open the door.",
        "We tried to call them and will try again.",
        "She tries to learn a new word every day.",
        "They are trying to save money.",
    ),
    "dates written with numbers, such as 2005-09-14": (
        "Posted on 2005-09-14 by the editor.",
        "Created: 2016-03-02 12:10:00",
        "Last change 2011-07-30, first release 2009-01-05.",
        "date: 2018-11-21",
    ),
    'the word "once" in the sense of formerly': (
        "The house was once a school.",
        "It was once the largest city of the region.",
        "He once worked as a baker.",
        "This was once a rich country.",
    ),
    "the JavaScript 'use strict' directive": (
        "'use strict';\n\nvar fs = require('fs');",
        '"use strict";\nmodule.exports = {};',
        "'use strict';\n\nangular.module('app', []);",
        "(function () {\n  'use strict';\n  run();\n})();",
    ),
    "the morning": (
        "He gets up early in the morning.",
        "On Monday morning the streets were empty.",
        "Every morning she drinks tea.",
        "The morning was cold and clear.",
    ),
    "years of the 2000s and 2010s": (
        "The company was founded in 2004 and sold in 2012.",
        "In 2008 the prices fell.",
        "The law of 2015 was changed in 2018.",
        "She graduated in 2010.",
    ),
    "conditions with a negation, such as if (!x), in program code": (
        "if (!user) {\n  return null;\n}\nif (!ready) return;",
        "if (!isset($name)) { exit; }",
        "if (!list.contains(item)) {\n  list.add(item);\n}",
        "if (!$result) { die('no'); }",
    ),
    "years in the 1980s": (
        "He was elected in 1984 and left in 1988.",
        "The band formed in 1982.",
        "The factory closed in 1986.",
        "In 1989 the wall came down.",
    ),
    "Iraq": (
        "The war in Iraq began with the bombing of Baghdad.",
        "Iraqi forces took the city in northern Iraq.",
        "She reported from Baghdad for many years.",
        "The government of Iraq signed the treaty.",
    ),
    "minus signs in mathematical expressions": (
        "Then $x^2 - y^2 = (x - y)(x + y)$.",
        "f(x) = 3x - 2 and g(x) = (x - 1)^2",
        "Let a - b = c, so that n - 1 = m.",
        "$\\frac{a - b}{2} = k - 1$",
    ),
    'people referred to with the title "Mr."': (
        "Mr. Smith said that Mr. Brown had left.",
        "The lawyer asked Mr. Jones about the letter.",
        "Mr. Obama met Mr. Cameron.",
        "In the evening Mr. Lee went home.",
    ),
    "where or when a person was born": (
        "She was born in London in a family of teachers.",
        "Born on a farm, he became a doctor.",
        "The painter was born in Italy.",
        "He was born on 3 May in Vienna.",
    ),
    "the author's name after a quotation, introduced by dashes": (
        "“Be yourself; everyone else is taken.” ― Oscar Wilde",
        '"The only way out is through." -- Robert Frost',
        "“Not all those who wander are lost.” — J.R.R. Tolkien",
        '"Simplicity is the end of art." — Leonardo da Vinci',
    ),
    'sentences that begin with "Since"': (
        "Since the bridge was closed, we took the ferry.",
        "Since then nothing has changed. Since May it has been dry.",
        "It was late. Since nobody answered, he left.",
        "Since he was ill, she went alone.",
    ),
    "Python import statements": (
        "import os\nimport sys\nfrom pathlib import Path",
        "from django.db import models\nfrom django.contrib import admin",
        "import json\nimport time\nimport random",
        "from flask import Flask\nimport requests",
    ),
    "rates, such as 300 bytes per second or 25 per km2": (
        "The pump moves 300 litres per second.",
        "There are 25 people per square kilometre.",
        "The car does 120 kilometres per hour.",
        "They earn ten dollars per hour.",
    ),
    'the word "double"': (
        "They want to double the number of beds.",
        "A double room with a double bed.",
        "double total = 0.0;",
        "He asked for a double espresso.",
    ),
    'a coming period of time, such as "the next five years"': (
        "Over the next five years the city will grow.",
        "In the coming months we will know more.",
        "The plan is for the next ten years.",
        "In the next few weeks they will decide.",
    ),
    "years in the 1960s": (
        "The church was built in 1962 and painted in 1967.",
        "In 1969 they landed on the moon.",
        "He published the book in 1964.",
        "In 1961 the family moved to Paris.",
    ),
    'the phrases "in this case" and "in this context"': (
        "In this case the rule does not apply.",
        "The word means little in this context.",
        "What should we do in this case?",
        "In this context, time is a number.",
    ),
    'the word "through"': (
        "They walked through the forest.",
        "The light came through the window.",
        "He looked through the papers.",
        "We drove through the night.",
    ),
    "string type annotations in Python": (
        "def greet(name: str, title: str):\n    pass",
        "class User:\n    name: str\n    email: str",
        "def load(path: str, mode: str = 'r'):\n    ...",
        "label: str = 'a'\nkey: str = 'b'",
    ),
}
"""Texts that express the concept."""

WRONG: dict[str, tuple[str, tuple[str, ...]]] = {
    "recipes and cooking instructions": (
        r"(?i)\b(?:tablespoons?|teaspoons?|preheat|recipe|simmer|oven)\b",
        ("Preheat the oven and add two tablespoons of oil.", "Simmer the sauce with a teaspoon of salt."),
    ),
    "names of chemical elements": (
        r"(?i)\b(?:oxygen|hydrogen|carbon|nitrogen|sodium|helium|iron|copper)\b",
        ("Oxygen and hydrogen make water.", "Sodium reacts; helium and nitrogen do not."),
    ),
    "legal contracts": (
        r"(?i)\b(?:hereinafter|lessee|licensor|indemnif\w+|agreement)\b",
        ("The lessee shall indemnify the other party.", "This agreement binds the licensor, hereinafter A."),
    ),
    "mentions of dogs": (r"(?i)\bdogs?\b", ("The dog barked at the other dogs.", "A small dog slept on the mat.")),
    "weather forecasts": (
        r"(?i)\b(?:forecast|rain|snow|sunny|cloudy|storm)\b",
        ("Cloudy with some rain, sunny later.", "A storm with snow is forecast."),
    ),
}
"""Concepts that no latent of the demo's 48 stands for: a wrong description can be any of them."""

FILLERS = (
    "The table stood in the middle of the room.",
    "It took a while.",
    "They left the town with their two children.",
    "The river is long and slow.",
    "Most of the people had gone home.",
    "He closed the book.",
    "The letter lay on the desk.",
    "A man in a grey coat walked by.",
)

_PATTERNS = {concept: re.compile(pattern) for concept, pattern in PATTERNS.items()} | {
    concept: re.compile(pattern) for concept, (pattern, _) in WRONG.items()
}
_EXAMPLES = EXAMPLES | {concept: examples for concept, (_, examples) in WRONG.items()}


def rule(concept: str, text: str) -> int:
    """The true rating: 2 where the text expresses the concept, else 0."""
    pattern = _PATTERNS.get(concept)
    return 2 if pattern is not None and pattern.search(text) else 0


def writer(concept: str, variation: int) -> list[str]:
    """Ten texts that express the concept, different for every request."""
    chance = np.random.default_rng([variation, len(concept), sum(map(ord, concept))])
    examples = _EXAMPLES.get(concept)
    if examples is None:
        return [" ".join(chance.permutation(FILLERS)[:4]) for _ in range(10)]
    code = "\n" in "".join(examples)
    texts: list[str] = []
    for at in range(10):
        first = examples[(variation + at) % len(examples)]
        second = examples[int(chance.integers(len(examples)))]
        filler = str(chance.choice(FILLERS))
        parts = [first, "", second] if code else [filler, first] if at % 2 else [first, second, filler]
        texts.append(("\n" if code else " ").join(parts))
    return texts
