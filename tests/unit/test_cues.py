import json
from pathlib import Path

import pytest

from shards.files.cues import read_cues
from shards.files.source import Source
from shards.recording import Narration


def read(folder: Path, name: str, content: str | bytes) -> tuple[Narration, ...]:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    return read_cues(Source(str(folder)), name)


SRT = """1
00:00:01,500 --> 00:00:02,250
A cup
is taken

2
01:02:03,004 --> 01:02:04,000 X1:40 X2:60
<i>Wäscht</i> sie {\\an8}ab – 5 < 7 > 3, <3

3
00:00:00,000 --> 00:00:10,000
overlaps
"""
CUES = (
    (0.0, 10.0, "overlaps"),
    (1.5, 2.25, "A cup is taken"),
    (3723.004, 3724.0, "Wäscht sie ab – 5 < 7 > 3, <3"),
)


@pytest.mark.parametrize(
    "content",
    [
        SRT.encode(),
        SRT.replace("\n", "\r\n").encode(),
        SRT.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + SRT.encode(),
        SRT.encode("utf-16"),
        ("\n\n" + SRT.rstrip()).encode(),
        SRT.replace("\n\n", "\n \n\n").encode(),
        SRT.replace(",500", ".5").replace("1\n00", "00", 1).encode(),
    ],
    ids=["plain", "CRLF", "CR", "BOM", "UTF-16", "no final line feed", "spaces", "no number"],
)
def test_srt(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, "a.srt", content) == CUES


def test_vtt(tmp_path: Path) -> None:
    text = """WEBVTT - Kitchen
Kind: captions

STYLE
::cue(b) { color: red }

NOTE
00:01.000 --> 00:02.000 is no cue here

NOTE one line

REGION
id:fred

second
00:05.000 --> 00:06.500 align:start position:0%
<v Anna Müller>Fish &amp; chips &lt;3&nbsp;
<c.yellow.bg_blue>now</c> <00:05.500>then

123:00:00.000 --> 123:00:01.000
late &amp;lt; <ruby>漢<rt>kan</rt></ruby>

00:01.000 --> 00:02.000
<b>first</b>

00:03.000 --> 00:04.000
"""
    assert read(tmp_path, "a.VTT", text) == (
        (1.0, 2.0, "first"),
        (3.0, 4.0, ""),
        (5.0, 6.5, "Fish & chips <3  now then"),
        (442800.0, 442801.0, "late &lt; 漢kan"),
    )


@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
@pytest.mark.parametrize(
    ("block", "line", "message"),
    [
        ("7\n00:00:05,000 -->\ntext", 2, "are no times; write them as"),
        ("7\n00:00:05,000 --> 00:00:61,000\ntext", 2, "are no times"),
        ("7\n-00:00:05,000 --> 00:00:06,000\ntext", 2, "are no times"),
        ("7\n5.0 --> 6.0\ntext", 2, "are no times"),
        ("7\n00:00:05,000 --> 00:00:04,000\ntext", 2, "ends at 4 s, before it starts at 5 s"),
        ("00:00:05,000 --> 00:00:06,000\na\n\nb", 4, "no times; a cue is its number"),
        ("7", 1, "no times"),
        ("00:00:05,000 --> 00:00:06,000\na\n8\n00:00:07,000 --> 00:00:08,000\nb", 4,
         "times within text; put a blank line before"),
    ],
)  # fmt: skip
def test_faults_of_subtitles(
    tmp_path: Path, name: str, block: str, line: int, message: str
) -> None:
    before = ["WEBVTT", "", "00:00:01,000 --> 00:00:02,000", "two", "lines", ""]
    before = before if name == "a.vtt" else ["1", *before[2:]]
    with pytest.raises(ValueError, match=rf"{name}, line {len(before) + line}: .*{message}"):
        read(tmp_path, name, "\n".join([*before, block, "", "00:11,0 --> 00:12,0", "end"]))


def test_a_vtt_file_has_its_header(tmp_path: Path) -> None:
    for text in (SRT, "WEBVTTX\n\n00:01.000 --> 00:02.000\nx", "NOTE WEBVTT\n"):
        with pytest.raises(ValueError, match=r"a\.vtt, line 1: a VTT file begins with WEBVTT"):
            read(tmp_path, "a.vtt", text)


@pytest.mark.parametrize(
    "text",
    [
        "start_s,end_s,text\n5,6.5,b\n-1.5,,a\n5,5,\"c, \"\"d\"\"\ne\"\n",
        "\ufeffstart,end,text\r\n5,6.5,b\r\n-1.5,,a\r\n\r\n5,5,\"c, \"\"d\"\"\r\ne\"\r\n",
        "\n Who ;TIME; End_s ;TEXT\nx; 5 ;6.5;b\nx;-1.5; ;a\n;;;\nx;5;5;\"c, \"\"d\"\"\ne\"",
        "time_s\ttext\tend\n5\tb\t6.5\n-1.5\ta\t\n5e0\t\"c, \"\"d\"\"\ne\"\t+5",
    ],
    ids=["plain", "BOM CRLF", "semicolons", "tabs"],
)  # fmt: skip
def test_csv(tmp_path: Path, text: str) -> None:
    expected = ((-1.5, -1.5, "a"), (5.0, 5.0, 'c, "d"\ne'), (5.0, 6.5, "b"))
    assert read(tmp_path, "a.csv", text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start_s,txt\n1,a", "line 1: no text; the nearest is 'txt'; name it text"),
        ("\nbegin,text\n1,a", "line 2: no start_s; the nearest is '.*'; name it start_s"),
        ("1.5,a cup\n2,b", "line 1: no start_s"),
        ("start_s,text\n1,a\n2,a, b", "line 3: 3 cells, not 2; put text that holds ',' in quot"),
        ("start_s,text\n1,a\n2", "line 3: 1 cells, not 2"),
        ('start_s,text\n1,"a\nb"\n\nx,c', "line 5: start_s is 'x'; write seconds, such as 83.5"),
        ("start;text\n1,5;a", "line 2: start is '1,5'; write seconds"),
        ("start_s,text\nnan,a", "line 2: start_s is 'nan'"),
        ("start_s,end_s,text\n1,inf,a", "line 2: end_s is 'inf'"),
        ("start_s,text\n00:01:02,a", "line 2: start_s is '00:01:02'"),
        ("start_s,text\n ,a", "line 2: start_s is empty"),
        ("start_s,end_s,text\n3,4,a\n3,2.5,a", r"line 3: ends at 2\.5 s, before it starts at 3 s"),
        ('start_s,text\n1,a\n2,"b', "line 3: .*; correct its quotation marks"),
        ("start_s,text\n", " holds no narration"),
        ("", " holds no narration"),
    ],
)
def test_faults_of_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.csv(, )?{message}"):
        read(tmp_path, "a.csv", text)


def test_json(tmp_path: Path) -> None:
    entries = [
        {"start_s": 5, "end_s": 6.5, "text": "b"},
        {"time": -1.5, "end": None, "text": "a, [b]", "by": {"id": [1]}},
        {"text": 'c "d"\ne ü', "start": 5.0},
    ]
    expected = ((-1.5, -1.5, "a, [b]"), (5.0, 5.0, 'c "d"\ne ü'), (5.0, 6.5, "b"))
    for text in (json.dumps(entries), json.dumps(entries, indent=1, ensure_ascii=False)):
        assert read(tmp_path, "a.json", "\ufeff" + text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"start_s": 1, "text": "a"},\n]', ", line [23]: no JSON"),
        ("", ", line 1: no JSON"),
        ('{"start_s": 1, "text": "a"}', " is no list; write "),
        ("[]", " holds no narration"),
        ('[\n{"start_s": 1, "text": "[{,"},\n\n 7]', ", line 4: 7 is no object with start_s"),
        ('[{"start_s": 1,\n"text": "a"},\n{"strat_s": 1, "text": "a"}]',
         ", line 3: no start_s; the nearest is 'strat_s'"),
        ('[{"start_s": 1}]', ", line 1: no text"),
        ('[{"start_s": true, "text": "a"}]', ", line 1: start_s is True; write seconds"),
        ('[{"start_s": [1], "text": "a"}]', r", line 1: start_s is \[1\]"),
        ('[{"start_s": NaN, "text": "a"}]', ", line 1: start_s is nan"),
        ('[{"start_s": null, "text": "a"}]', ", line 1: start_s is empty"),
        ('[\n{"start_s": 2, "end_s": 1, "text": "a"}]', ", line 2: ends at 1 s, before it starts"),
        ('[\n{"start_s": 2, "text": 7}]', ", line 2: text is 7; write it in quotation marks"),
    ],
)  # fmt: skip
def test_faults_of_json(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.json{message}"):
        read(tmp_path, "a.json", text)


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.txt: narrations are read from \.csv, \.json, \.srt"):
        read(tmp_path, "a.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.srt, line 3: no UTF-8 text; save the file as UTF-8"):
        read(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\nWäscht".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.csv.*no UTF-8 text"):
        read(tmp_path, "a.csv", b"\xff\xfes")  # half a character of UTF-16
    for name in ("a.srt", "a.csv"):
        with pytest.raises(ValueError, match=rf"{name}.* holds no narration"):
            read(tmp_path, name, "")
    with pytest.raises(FileNotFoundError):
        read_cues(Source(str(tmp_path)), "none.srt")
