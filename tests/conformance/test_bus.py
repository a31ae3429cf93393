"""What the event log promises, held over both of them."""

from __future__ import annotations

from shared.bus import Bus, Message
from shared.topics import Topic

TOPIC = Topic(name="t.things", key="thing", types=(), producer="scoring", partitions=2)


async def test_smoke(bus: Bus) -> None:
    report = await bus.ensure_topics([TOPIC])
    assert report.created == (TOPIC.name,)
    p = await bus.producer()
    assert await p.publish([Message(TOPIC.name, b"k%d" % i, b"v", (("a", b"b"),)) for i in range(10)]) == [None] * 10
    print(await bus.ranges([TOPIC.name]))
    await p.close()
