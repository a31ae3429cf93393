"""What a contact detail is called, and what one looks like: those stay in scoring's tables.

A list of names and two patterns find what senders usually send, not everything. What they miss: a contact detail
under a name that says nothing (`custom_7`), a telephone number without `+` and country code, a name or a street inside
a text, an address written around its `@`. Who must be sure leaves such fields out at the sender.
"""

from __future__ import annotations

import re

from shared.events import Scalar
from shared.telemetry import E_MAIL

PHONE = re.compile(r"(?<![\w+])\+\d(?:[\s().\-/]{0,2}\d){7,14}(?!\d)")  # E.164, as people write it

_SPELLINGS = {
    "email": "email e_mail mail email_address emailaddress primary_email work_email",
    "name": "name full_name fullname display_name",
    "first_name": "first_name firstname given_name givenname forename",
    "last_name": "last_name lastname surname family_name familyname",
    "phone": "phone phone_number phonenumber telephone telephone_number tel mobile mobilephone mobile_phone "
    "mobile_number mobilenumber cell cellphone cell_phone whatsapp whats_app whatsapp_number work_phone home_phone",
    "company": "company company.name company_name",
    "address": "address street address.street street_address address1 address_1 address_line1 address_line_1",
    "city": "city address.city",
    "postal_code": "zip zip_code zipcode postal_code postalcode post_code postcode "
    "address.postal_code address.postalcode address.zip address.zip_code address.postcode",
}
CONTACT = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_OTHERS = (  # kept nowhere but in the raw bytes
    "username user_name nickname middle_name maiden_name avatar birthday birthdate birth_date date_of_birth dob "
    "ip ip_address fax fax_number address2 address_2 address_line2 address_line_2 linkedin linked_in linkedin_url "
    "linkedinbio linkedin_profile twitter twitter_handle twitterhandle twitterbio twitterprofilephoto facebook "
    "instagram skype telegram wechat xing"
)
PERSONAL = frozenset(_OTHERS.split())

_OF_A_FIRM_AS_OFTEN = frozenset({"name", "display_name", "company", "company.name", "company_name", "city"})
_PRIVATE = frozenset({*CONTACT, *PERSONAL}) - _OF_A_FIRM_AS_OFTEN
_ENDINGS = tuple(f"_{name}" for name in _PRIVATE - {"cell", "mail"})  # a `fuel_cell`, a `direct_mail`


def is_contact_detail(name: str, value: Scalar) -> bool:
    """By the last word of its name, or because the value holds an e-mail address or a telephone number."""
    if isinstance(value, bool):
        return False  # whether there is one: `has_phone`
    last = name.rpartition(".")[2]
    return last in _PRIVATE or last.endswith(_ENDINGS) or holds_contact_detail(value)


def holds_contact_detail(value: Scalar) -> bool:
    """Whether a text holds an e-mail address or a telephone number with its country code."""
    if not isinstance(value, str):
        return False
    text = value.replace("%40", "@")
    return ("@" in text and E_MAIL.search(text) is not None) or ("+" in text and PHONE.search(text) is not None)
