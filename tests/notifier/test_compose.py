"""Who is told what, and that nothing a lead typed does anything in what is sent."""

from __future__ import annotations

import json
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.notifier.channels import Item
from services.notifier.channels.email import build, mailbox
from services.notifier.compose import AUTOMATION_RECEIVER, Channel, Desk, Known, Message, compose
from services.notifier.escape import plain, short_name, slack_mention
from shared.agreement import parse
from shared.events import (
    Event,
    HandoffAccepted,
    HandoffExpired,
    HandoffReassigned,
    HandoffRejected,
    HandoffUnrouted,
    NurtureRequested,
    NurtureResumed,
    SlaMet,
    SlaWarned,
)
from tests.notifier.samples import ACME, CONTACT, CONTENT, FRIDAY, TRACE, handoff, mql, nurture, sla

DESK = Desk(frozenset(Channel), "https://baton.acme.example")
KNOWN = Known(mql(), ACME)

CANARIES = (
    "<img src=x onerror=alert(1)>",
    "</td><script>alert(1)</script>",
    "<!channel>",
    "<!here|x>",
    "<@U0SAM>",
    "<https://evil.example|Open in Baton>",
    "https://evil.example/",
    "Eve\r\nBcc: all@evil.example",
    "Eve\u2028Bcc: all@evil.example",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "${7*7}",
    "\u202eelgoog",
    "=HYPERLINK(1)",
    "a\x00b",
    "& < > \" '",
)


def told(event: Event, known: Known = KNOWN, desk: Desk = DESK) -> list[tuple[str, str]]:
    return [(message.receiver, message.channel.value) for message in compose(event, known, desk)]


def only(event: Event, channel: Channel, known: Known = KNOWN) -> Message:
    (message,) = [message for message in compose(event, known, DESK) if message.channel is channel]
    return message


def with_lead(value: str) -> Known:
    fields = {"name": value, "company": value, "email": value, "phone": value, "first_name": value}
    return Known(mql(contact=fields), ACME)


def slack_texts(message: Message) -> list[str]:
    payload = json.loads(message.content["payload"])
    return [payload["text"], *(block["text"]["text"] for block in payload["blocks"])]


@pytest.mark.parametrize(
    ("event", "address"),
    [
        (handoff(), "ana@acme.example"),
        (handoff(HandoffReassigned, owner="bo"), "bo@acme.example"),
        (handoff(owner="sam@acme.example"), "sam@acme.example"),
        (sla(SlaWarned, owner="chi"), "chi@acme.example"),
        (sla(owner="chi"), "ana@acme.example"),
        (sla(owner=None, manager="sam@acme.example"), "sam@acme.example"),
        (handoff(HandoffUnrouted), "sam@acme.example"),
    ],
)
def test_the_right_person_hears_by_mail_and_slack(event: Event, address: str) -> None:
    assert told(event) == [(address, "email"), (address, "slack")]


@pytest.mark.parametrize("event", [nurture(), nurture(NurtureRequested, version=2), nurture(NurtureResumed)])
def test_marketings_automation_alone_hears_of_the_nurture_lock(event: Event) -> None:
    assert told(event) == [(AUTOMATION_RECEIVER, "automation")]


@pytest.mark.parametrize(
    "event",
    [
        handoff(HandoffAccepted),
        handoff(HandoffRejected),
        handoff(HandoffExpired),  # its new owner is told
        sla(SlaMet),
        sla(owner="chi", manager=None),  # the agreement says nothing of notify_manager
        mql(),
    ],
)
def test_nobody_is_bothered_with_the_rest(event: Event) -> None:
    assert told(event) == []


def test_an_assignment_says_who_why_and_until_when_in_the_calendars_zone() -> None:
    text = only(handoff(), Channel.EMAIL).content["text"]
    for expected in (
        "Ada Byron",
        "Plant & Sons",
        "size (fit): +60",
        "pricing (engagement): +30",
        "accept: Fri 19 Nov 2027, 10:05 EST",
        "first touch: Fri 19 Nov 2027, 10:10 EST",
        "https://baton.acme.example/v1/handoffs/handoff_1",
    ):
        assert expected in text
    assert text.index("size (fit)") < text.index("pricing (engagement)")
    assert "careers" not in text


def test_an_assignment_names_the_due_times_of_the_policy_that_its_clocks_run_by() -> None:
    agreement = parse(CONTENT.replace("when: {bucket: hot}\n", "when: {raised_hand: true}\n", 1))
    texts = [
        only(handoff(), Channel.EMAIL, Known(structs.replace(mql(), raised_hand=hand), agreement)).content["text"]
        for hand in (True, False)
    ]
    assert ["accept: Fri 19 Nov 2027, 10:05 EST" in text for text in texts] == [True, False]


def test_a_breach_says_which_deadline_whose_and_when_it_was() -> None:
    message = only(sla(owner="chi"), Channel.EMAIL)
    assert message.content["subject"] == "First touch was missed: Ada Byron"
    assert "Fri 19 Nov 2027, 10:10 EST" in message.content["text"]
    assert "Chi Nguyen" in message.content["text"]


def test_an_unrouted_lead_says_why_nobody_got_it() -> None:
    unrouted = handoff(HandoffUnrouted)
    assert isinstance(unrouted, HandoffUnrouted)
    told = structs.replace(unrouted, candidates={"ana": "is not active", "chi": "rejected it", "zoe": "had it before"})
    text = only(told, Channel.EMAIL).content["text"]
    assert "Nobody of the pool na-robots can take it: Ana Diaz is not active; Chi Nguyen rejected it; zoe had" in text
    assert "mql_1" not in text


def test_an_unrouted_lead_of_an_empty_pool_has_no_reasons() -> None:
    assert "Nobody of the pool na-robots can take it." in only(handoff(HandoffUnrouted), Channel.EMAIL).content["text"]


def test_slack_names_the_owner_by_the_agreements_user_id() -> None:
    assert slack_texts(only(handoff(owner="ana"), Channel.SLACK))[-1].startswith("<@U0ANA> <https://")


@pytest.mark.parametrize("user", [None, "", "!channel", "U0ANA>", "ana", "<@U1>"])
def test_what_is_no_slack_user_id_mentions_nobody(user: str | None) -> None:
    assert slack_mention(user) == ""


def test_the_webhook_is_thin_and_says_what_the_tool_needs() -> None:
    body = json.loads(only(nurture(NurtureRequested, version=4), Channel.AUTOMATION).content["body"])
    assert body == {
        "type": "nurture.requested",
        "timestamp": FRIDAY.isoformat(),
        "data": {
            "handoff_id": "handoff_1",
            "mql_id": "mql_1",
            "lead_id": "lead_0199",
            "version": 4,
            "identities": {"email": CONTACT["email"], "crm.hubspot": "123"},
            "is_locked": False,
            "track": "budget-track",
            "reason": "no_budget",
            "reason_class": "timing",
            "wake_at": (FRIDAY + timedelta(days=90)).isoformat(),
        },
    }


def test_what_is_not_known_is_left_out() -> None:
    message = only(handoff(), Channel.EMAIL, Known(None, ACME))
    assert message.content["subject"] == "A lead for you: a new lead"
    assert "Why:" not in message.content["text"]


def test_without_the_agreement_the_delivery_says_that_there_is_no_address() -> None:
    (message,) = compose(handoff(), Known(mql(), None), DESK)
    assert (message.receiver, message.problem) == ("ana", "the agreement names no address")


def test_a_channel_that_is_not_configured_makes_no_message() -> None:
    assert told(handoff(), desk=Desk(frozenset({Channel.SLACK}), "")) == [("ana@acme.example", "slack")]


@pytest.mark.parametrize(
    ("event", "receiver", "channel"),
    [(handoff(), "ana@acme.example", "email"), (nurture(), AUTOMATION_RECEIVER, "automation")],
)
def test_a_receiver_that_no_channel_reaches_is_one_visible_problem(event: Event, receiver: str, channel: str) -> None:
    (message,) = compose(event, KNOWN, Desk(frozenset(), ""))
    assert (message.receiver, message.channel, message.problem) == (receiver, channel, "no channel configured")
    assert message.content == {}


def test_the_same_event_makes_the_same_bytes() -> None:
    assert compose(handoff(), KNOWN, DESK) == compose(handoff(), KNOWN, DESK)


@pytest.mark.parametrize("canary", CANARIES)
def test_what_a_lead_typed_makes_no_markup_in_a_mail(canary: str) -> None:
    html = only(handoff(), Channel.EMAIL, with_lead(canary)).content["html"]
    assert tags(html) == tags(only(handoff(), Channel.EMAIL, with_lead("Ada")).content["html"])


@pytest.mark.parametrize("canary", CANARIES)
def test_what_a_lead_typed_makes_no_line_in_a_mail(canary: str) -> None:
    text = only(handoff(), Channel.EMAIL, with_lead(canary)).content["text"]
    plain_text = only(handoff(), Channel.EMAIL, with_lead("Ada")).content["text"]
    assert len(text.splitlines()) == len(plain_text.splitlines())
    assert "://" not in text.replace("https://baton.acme.example", "")


@pytest.mark.parametrize("canary", CANARIES)
def test_what_a_lead_typed_makes_no_header(canary: str) -> None:
    content = only(handoff(), Channel.EMAIL, with_lead(canary)).content
    box = mailbox("smtp://localhost:25", "baton@acme.example")
    mail = build(box, Item("dlv_1", "handoff_1", content, FRIDAY, TRACE))
    head = mail.split(b"\r\n\r\n")[0].lower()
    assert b"\nbcc:" not in head
    assert not set("<>{}%@=") & set(content["subject"])


@pytest.mark.parametrize("canary", CANARIES)
def test_what_a_lead_typed_is_no_mention_and_no_link_in_slack(canary: str) -> None:
    fallback, headline, facts, action = slack_texts(only(handoff(), Channel.SLACK, with_lead(canary)))
    for text in (fallback, headline, facts):
        assert not {"<", ">"} & set(text)
        assert "://" not in text
    assert action == "<@U0ANA> <https://baton.acme.example/v1/handoffs/handoff_1|Open in Baton>"


def test_slack_shows_what_a_lead_typed_without_markup() -> None:
    payload = json.loads(only(handoff(), Channel.SLACK).content["payload"])
    assert [block["text"]["type"] for block in payload["blocks"]] == ["plain_text", "plain_text", "mrkdwn"]
    assert (payload["link_names"], payload["unfurl_links"]) == (False, False)


@given(st.text(max_size=300))
def test_any_text_becomes_one_visible_line(text: str) -> None:
    line = plain(text)
    assert len(line) <= 121
    assert len(line.splitlines()) <= 1
    assert "://" not in line
    assert line.isprintable() or set(line) & set("\u200c\u200d")
    assert not set(short_name(text)) & set("<>{}%@=\r\n:")


def test_a_name_of_another_script_keeps_its_letters() -> None:
    assert short_name("Nguyễn Thị Ánh-Tuyết") == "Nguyễn Thị Ánh-Tuyết"
    assert short_name("O'Neill, 山田 太郎") == "O'Neill 山田 太郎"


def tags(html: str) -> list[str]:
    """Every tag with its attributes, in order."""
    found: list[str] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(f"{tag} {attrs}")

    Collector().feed(html)
    return found
