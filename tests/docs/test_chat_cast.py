"""The film of `e3rl chat` shows a draft dim, an erasure struck through, and its replacement plain."""

from __future__ import annotations

import re
from itertools import count
from xml.etree import ElementTree

from tests.clients.python.servers import ASK, client_of, healed, sse
from tests.docs.test_documents import script


def test_the_film_has_a_picture_per_event() -> None:
    cast = script("make_chat_cast")
    stream = client_of(content=sse(healed())).chat.completions.stream_events(**ASK)
    ticks = count()
    pictures = list(cast.film(stream, "2 & 2?", lambda: float(next(ticks))))
    drawn = cast.svg(pictures, "2 & 2?")
    ElementTree.fromstring(drawn)
    assert len(pictures) == 11  # its events, and the end
    assert drawn.count('<tspan class="b">&gt; 2 &amp; 2?</tspan>') == 11
    assert '<tspan class="d">It is 5.</tspan>' in drawn and '<tspan class="e">It is 5.</tspan>' in drawn
    assert re.search(r"<text [^>]*>It is 4\. Yes\.</text><text [^>]*><tspan class=\"d\">U 3\.00", drawn)
    assert [picture.second for picture in pictures] == sorted(picture.second for picture in pictures)
