"""The text that `codec: auto` measures a model's layers on: prose, a list, figures, code, and names that come back.

Our own, so that it may be shipped; some 700 tokens of a large vocabulary, more of a small one.
"""

from typing import Final

CALIBRATION_TEXT: Final = """\
The ferry to Lindholm leaves twice a day, at seven in the morning and again at a quarter past four. In winter, when the
ice reaches the breakwater, it does not leave at all, and the island's ninety-three people live from what they stored
in autumn. Marta Ekberg, who has kept the post office there since 1987, writes every crossing into a green notebook:
the hour, the wind, how many passengers, whether the mail was dry. "Nobody asked me to," she says, "but somebody will
want to know." Last spring somebody did. A group of oceanographers from the university had satellite pictures of the
ice and nothing to compare them with, until one of them drank coffee at the post office and saw the notebook.

What they found in it can be put in four points:

1. The ice now reaches the breakwater eleven days later than it did thirty years ago.
2. Storms from the south-west are no more frequent, but they last longer: 19 hours on average instead of 14.
3. The number of passengers fell from 4,210 a year to 2,875, mostly in the months of February and March.
4. On 6 of 12,640 crossings the mail was wet.

To turn the notebook into a table they wrote a small program, which Marta keeps pinned to the wall although she does
not program herself:

    def read_crossing(line: str) -> Crossing:
        day, hour, wind, passengers, mail = line.split(";")
        if mail not in {"dry", "wet"}:
            raise ValueError(f"line {line!r} says neither dry nor wet")
        return Crossing(parse_date(day), parse_time(hour), float(wind), int(passengers), mail == "dry")

    crossings = [read_crossing(line) for line in open("lindholm.csv") if not line.startswith("#")]
    wet = sum(1 for crossing in crossings if not crossing.is_dry)
    print(f"{wet} of {len(crossings)} crossings had wet mail ({100 * wet / len(crossings):.2f} %)")

The two oldest volumes were harder. Water had run the ink together, and the names of captains were shortened to
initials: was J.H. the Johan Holm who later bought the ferry, or his brother Jens? Marta knew. Johan never wrote the
wind in metres per second, she explained, he wrote it in words (calm, fresh, "enough"), and his sevens had a bar. So
where the hand was Johan's the table says "Holm, Johan", and where it was not it says "Holm, Jens", and in three cases
it says "unknown", because the oceanographers wanted to be honest and so did she.

Dear Ms Ekberg, one of them wrote in December, the paper has been accepted. Your name is on it, between the two of us.
We would like to bring you a printed copy; is there a ferry on the 14th? There was not. The ice had come early, for
once, and the copy waited at the harbour office until March. When it arrived she read the first page, looked at the
figure with the notebook's dates along its lower edge, and wrote into the green book: quarter past four, fresh wind,
seven passengers, mail dry.
"""
