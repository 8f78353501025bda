"""Words in every script: which font, which order, where lines break, and how often long words are measured."""

import itertools
import shutil
import subprocess
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageFont

from aas.view import faces, text, writing
from aas.view.text import Piece, one_line, shortened, wrapped
from aas.view.writing import clusters, is_rtl, ordered, placed, runs, width_px

SENTENCES = {
    "English": "The quick brown fox’s “lazy” dog — 5½ × 3′ …",
    "French": "Voix ambiguë d’un cœur qui, au zéphyr, préfère les jattes de kiwis",
    "Polish": "Pchnąć w tę łódź jeża lub ośm skrzyń fig",
    "Turkish": "Pijamalı hasta yağız şoföre çabucak güvendi",
    "Vietnamese": "Do bạch kim rất quý nên sẽ dùng để lắp vô xương",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Russian": "Съешь же ещё этих мягких французских булок да выпей чаю",
    "Ukrainian": "Їжак лізе на ґанок, є п'ять щенят",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "Persian": "گربه‌ای که پژو را چپه کرد",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "Hindi": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण",
    "Bengali": "একটি বিড়াল চেয়ারে বসে আছে।",
    "Tamil": "ஒரு பூனை நாற்காலியில் அமர்ந்திருக்கிறது.",
    "Telugu": "ఒక పిల్లి కుర్చీలో కూర్చుంది.",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "Chinese": "一只猫坐在椅子上，旁边有一个杯子。視野無限廣，窗外有藍天。",
    "Japanese": "いろはにほへと、猫が椅子に座っています。カップ「薔薇」",
    "Korean": "키스의 고유조건은 입술끼리 만나야 하고 뷁",
    "Amharic": "ሰማይ አይታረስ ንጉሥ አይከሰስ።",
    "Georgian": "კატა სკამზე ზის.",
    "Armenian": "Կատուն նստած է աթոռին։",
    "Khmer": "ឆ្មាអង្គុយលើកៅអី។",
    "Burmese": "ကြောင်က ကုလားထိုင်ပေါ်မှာ ထိုင်နေတယ်။",
    "signs": "→ ≤ ≠ − • ✓ ★ ½ € ₹ ° ²",
}


@pytest.fixture
def only_own_fonts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faces, "system_sources", lambda code_point: [])
    faces.source_of.cache_clear()
    width_px.cache_clear()
    yield
    faces.source_of.cache_clear()
    width_px.cache_clear()


def ink(words: str, size_px: int = 24) -> np.ndarray:
    """bool [40, 900]: the pixels that the words blacken."""
    picture = Image.new("RGB", (900, 40), (255, 255, 255))
    writing.write(picture, (5, 20), words, size_px, (0, 0, 0))
    return np.asarray(picture).min(axis=2) < 128


# Fonts


@pytest.mark.parametrize("language", SENTENCES)
def test_the_packages_own_fonts_write(language: str, only_own_fonts):
    for run in runs(one_line(SENTENCES[language])):
        missing = [c for c in run.text if not faces.is_joiner(c) and ord(c) not in faces.coverage(run.source)]
        assert not missing, run.source.path


def test_accents_and_chinese_reach_the_picture(only_own_fonts):
    # No glyph is the empty box, and letters keep their accents.
    assert not (ink("é") == ink("e")).all() and not (ink("ł") == ink("l")).all()
    assert not (ink("猫") == ink("犬")).all() and not (ink("猫") == ink("\U0001f680")).all()
    assert (ink("e\u0301") == ink("é")).mean() > 0.999
    assert (ink("\U0001f680") == ink("\U0001f681")).all()  # a box each, where the system has no emoji either


@pytest.mark.skipif(not writing.SHAPES_TEXT, reason="Pillow without raqm")
def test_letters_are_shaped(only_own_fonts):
    # Joined Arabic letters and Indic clusters are narrower than the letters one by one.
    for words in ("قطة", "क्षत्रिय", "ஸ்ரீ"):
        assert width_px(words, 24) < 0.95 * sum(width_px(letter, 24) for letter in words)


def test_a_mark_that_no_font_has_costs_no_letter(only_own_fonts):
    assert faces.source_of("猫\u0f71").path.endswith("CJK-Regular.otf")
    assert faces.source_of("\U0001f680") == faces.own_sources()[0]


def test_all_fonts_stand_on_one_baseline():
    bottoms = [int(np.flatnonzero(ink(word, 30).any(axis=1))[-1]) for word in ("H", "Ж", "א", "ა")]
    assert max(bottoms) - min(bottoms) <= 1


def test_what_the_package_lacks_comes_from_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path):
    # A font that knows one sign more: our first one, in which "H" is found under a sign of the private area.
    from fontTools.ttLib import TTFont

    with TTFont(faces.own_sources()[0].path) as font:
        for table in font["cmap"].tables:
            if table.isUnicode():
                table.cmap[0xE123] = "H"
        font.save(tmp_path / "more.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    found = [faces.Source(str(tmp_path / name)) for name in ("broken.ttf", "more.ttf")]
    monkeypatch.setattr(faces, "system_sources", lambda code_point: found if code_point == 0xE123 else [])
    faces.source_of.cache_clear()
    assert faces.source_of("\ue123") == found[1]
    assert (ink("\ue123") == ink("H")).all()
    faces.source_of.cache_clear()


@pytest.mark.skipif(not shutil.which("fc-match"), reason="no fontconfig here")
def test_fontconfig_names_a_file():
    (source,) = faces.system_sources(ord("a"))
    assert ord("a") in faces.coverage(source)


def test_without_fontconfig_well_known_names_are_tried(monkeypatch: pytest.MonkeyPatch):
    ours = faces.own_sources()[0].path
    truetype = ImageFont.truetype

    def found(name: str, size: int) -> ImageFont.FreeTypeFont:
        if name != faces.KNOWN_NAMES[2]:
            raise OSError("cannot open resource")
        return truetype(ours, size)

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(faces.ImageFont, "truetype", found)
    faces._known_sources.cache_clear()
    assert faces.system_sources(0x1F680) == [faces.Source(ours)]
    faces._known_sources.cache_clear()


def test_a_fontconfig_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    def fail(*args, **options):
        raise subprocess.TimeoutExpired("fc-match", 5)

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", fail)
    assert faces.system_sources(0x1F680) == []


# Order


def test_runs_are_the_text_and_clusters_stay_whole():
    for words in map(one_line, SENTENCES.values()):
        assert "".join(clusters(words)) == "".join(run.text for run in runs(words)) == words
    assert clusters("e\u0301क्षि") == ["e\u0301", "क्षि"]
    assert clusters("\u200d\u200c") == [] and width_px("\u200d", 16) == 0
    assert [run.text for run in runs("a 猫 b")] == ["a", " ", "猫", " ", "b"]


def test_a_texts_first_letter_says_where_it_is_read_from():
    assert is_rtl("3 أكواب") and is_rtl("(שלום) cat")
    assert not is_rtl("3 cups") and not is_rtl("cat שלום") and not is_rtl("12 ...") and not is_rtl("")


def in_order(words: str) -> list[str]:
    return [run.text for run in ordered(runs(words), is_rtl(words))]


def test_words_stand_in_the_order_in_which_they_are_read():
    # Letters of one run are raqm's; here runs, as UAX 9 orders them.
    hebrew = in_order("חתול 3 כלבים")
    assert [run.strip() for run in hebrew if run.strip()] == ["כלבים", "3", "חתול"]
    mixed = in_order("חתול (black cat) כלב")
    joined = "".join(mixed)
    assert joined.index("כלב") < joined.index("black cat") < joined.index("חתול")
    english = "".join(in_order("a cat חתול and 3 dogs"))
    assert english.index("a cat") < english.index("חתול") < english.index("and 3 dogs")
    # Two runs of Hebrew with a number between them, inside of English: the whole stretch turns but for the number.
    assert "".join(in_order("see אב")).startswith("see")


def test_spaces_stay_between_the_words_they_part():
    parts = placed(["חתול 3 כלבים"], 20, rtl=True)
    by_text = {part.run.text.strip(): part for part in parts if part.run.text.strip()}
    gap_left = by_text["3"].x - (by_text["כלבים"].x + by_text["כלבים"].width_px)
    gap_right = by_text["חתול"].x - (by_text["3"].x + by_text["3"].width_px)
    assert gap_left == pytest.approx(gap_right, abs=1) and gap_left > 3
    assert parts[0].x == 0 and all(one.x < other.x for one, other in itertools.pairwise(parts))


def test_pieces_of_a_line_know_their_text():
    parts = placed(["קטן ", "cat", " גדול"], 20, rtl=True)
    assert [part.run.owner for part in parts if part.run.text.strip()] == [2, 1, 0]


# Lines


def lines_of(words: str, limit_px: float, size_px: int = 16) -> list[str]:
    return ["".join(piece.text for piece in line) for line in wrapped([Piece(words)], size_px, limit_px)]


def test_chinese_breaks_anywhere_but_before_its_full_stops():
    words = "一只猫坐在椅子上，旁边有一个杯子。" * 4
    for limit_px in range(40, 140, 7):
        lines = lines_of(words, limit_px)
        assert "".join(lines) == words
        assert all(width_px(line, 16) <= limit_px for line in lines)
        assert not [line for line in lines if line[0] in "，。"]
    for limit_px in range(40, 140, 7):  # nor where a phrase ends before it
        lines = wrapped([Piece("一只猫", 0), Piece("，旁边有一个"), Piece("杯子", 1), Piece("。")] * 4, 16, limit_px)
        assert not [line for line in lines if line[0].text[0] in "，。"]
    (first, *_) = lines_of("Look: " + words, 200)
    assert first.startswith("Look: 一只")  # no new line only because the sentence has no space


def test_a_long_word_breaks_between_clusters_and_lines_of_it_fit():
    words = "क्षत्रि" * 40
    lines = lines_of(words, 100)
    assert "".join(lines) == words and not any(unicodedata.category(line[0])[0] == "M" for line in lines)
    assert lines_of("a\n\n b\n", 100) == ["a", "", "b", ""]


def test_shortened_is_the_longest_beginning_that_fits():
    for words in ("a photograph of a cat", "قطة صغيرة تجلس على كرسي", "一只猫坐在椅子上"):
        for limit_px in (40, 60, 90):
            got = shortened(words, 16, limit_px)
            tries = [words[:n].rstrip() + "…" for n in range(1, len(words))]
            assert got == [one for one in tries if width_px(one, 16) <= limit_px][-1]
    assert shortened("cat", 16, 500) == "cat" and shortened("cat", 16, 3) == ""


@pytest.mark.parametrize("letter", ["x", "猫", "ق", "क्षि"])
def test_a_word_of_8000_letters_is_measured_a_few_times(letter: str, monkeypatch: pytest.MonkeyPatch):
    words, measured = letter * (8000 // len(letter)), []
    monkeypatch.setattr(text, "width_px", lambda part, size_px: measured.append(len(part)) or width_px(part, size_px))
    assert shortened(words, 16, 300).endswith("…")
    assert len(measured) <= 16 and sum(measured) <= 4 * len(words)
    measured.clear()
    lines = wrapped([Piece(words)], 16, 300)
    assert sum(measured) <= 3 * len(words)  # once as a whole, once each part
    assert sum(len(line[0].text) for line in lines) == len(words)
