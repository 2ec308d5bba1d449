"""Requests to a shop's support desk: what the quickstart's `intent` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.nano.recipe.tasks import Item
from registry.nano.recipe.words import DAYS

if TYPE_CHECKING:
    import random

    from registry.nano.recipe.words import Lexicon

PROMPT = "Which intent is this? {input}"

REQUESTS: dict[str, tuple[str, ...]] = {
    "order_status": (
        "has my order {number} left yet",
        "I want to know how far order {number} is",
        "is the {noun} I ordered on its way",
        "what is happening with order {number}",
    ),
    "cancel_order": (
        "I want to cancel order {number}",
        "please stop my order of the {noun}",
        "I changed my mind and no longer want the {noun}",
        "call off order {number} before it ships",
    ),
    "return_item": (
        "I would like to send the {noun} back",
        "how do I return the {noun}",
        "can I bring back the {noun} I bought on {day}",
        "I need a return label for the {noun}",
    ),
    "refund_missing": (
        "my refund for the {noun} has not arrived",
        "I still wait for the money back for {number}",
        "when do I get my refund",
        "you promised a refund on {day} but I got nothing",
    ),
    "wrong_item": (
        "you sent me a {noun} instead of a {noun2}",
        "I got the wrong {noun}",
        "this is not the {noun} I asked for",
        "the parcel held a {noun} that I never ordered",
    ),
    "damaged_item": (
        "the {noun} arrived broken",
        "there is a crack in the {noun}",
        "my {noun} came with a dent and scratches",
        "the {noun} was smashed when I opened the box",
    ),
    "change_address": (
        "I moved to {town}, please update my address",
        "send order {number} to {town} instead",
        "how can I correct the delivery address",
        "my street changed, where do I enter the new one",
    ),
    "delivery_time": (
        "how long does shipping to {town} take",
        "will the {noun} be here by {day}",
        "how many days until a parcel reaches {town}",
        "do you deliver on {day}",
    ),
    "delivery_cost": (
        "how much is shipping to {town}",
        "what does delivery of a {noun} cost",
        "is postage free for two {noun}s",
        "what are the shipping fees to {town}",
    ),
    "invoice_copy": (
        "I need the invoice for order {number}",
        "please mail me a receipt for the {noun}",
        "where can I download my bill",
        "my accountant asks for the invoice of {day}",
    ),
    "change_payment": (
        "I want to pay with another card",
        "how do I switch from card to bank transfer",
        "please change the payment method of order {number}",
        "can I pay the {noun} in cash instead",
    ),
    "payment_failed": (
        "my card was declined for order {number}",
        "the payment page shows an error",
        "I cannot check out, the payment did not go through",
        "my payment for the {noun} was rejected",
    ),
    "double_charge": (
        "I was charged twice for the {noun}",
        "you took the money for order {number} two times",
        "there are two identical debits on my statement",
        "why did I pay double for one {noun}",
    ),
    "gift_card": (
        "do you sell gift cards",
        "how do I redeem a gift card for a {noun}",
        "what is left on my gift card {number}",
        "I would like to give {name} a voucher card",
    ),
    "discount_code": (
        "my discount code {number} does not work",
        "is there a coupon for the {noun}",
        "where do I type in the promo code",
        "the coupon of {day} is not accepted",
    ),
    "reset_password": (
        "I forgot my password",
        "I cannot log in, please reset my password",
        "the password link of {day} has expired",
        "how do I choose a new password for {name}",
    ),
    "delete_account": (
        "please delete my account",
        "I want my profile and data removed",
        "how do I close the account of {name}",
        "erase everything you know about me",
    ),
    "change_email": (
        "I have a new email address",
        "how do I change the email of my login",
        "please replace the old email of {name}",
        "mails still go to my old email since {day}",
    ),
    "size_guide": (
        "which size of {noun} fits me",
        "is the {noun} true to size",
        "do you have a size chart for the {noun}",
        "how wide and tall is the {noun}",
    ),
    "stock_check": (
        "is the {noun} in stock",
        "when will the {noun} be available again",
        "do you have any {noun}s left",
        "is the {noun} sold out in {town}",
    ),
    "warranty_claim": (
        "my {noun} stopped working, is it under warranty",
        "how long is the warranty on the {noun}",
        "I want to use the guarantee for my {noun}",
        "does the guarantee of {number} still hold",
    ),
    "repair_request": (
        "can you repair my {noun}",
        "who fixes a {noun} in {town}",
        "I need a spare part to mend the {noun}",
        "please book a repair of the {noun} on {day}",
    ),
    "opening_hours": (
        "when do you open on {day}",
        "until what hour is the shop in {town} open",
        "are you closed on {day}",
        "what are the opening times in {town}",
    ),
    "store_location": (
        "where is your nearest shop",
        "do you have a branch in {town}",
        "how do I get to the shop in {town}",
        "is there a store close to {town}",
    ),
    "speak_to_agent": (
        "I want to talk to a human",
        "please let someone call me on {day}",
        "connect me with a real person",
        "can {name} from your team phone me",
    ),
    "stop_newsletter": (
        "please stop sending me the newsletter",
        "unsubscribe me from your mailing list",
        "I get too many adverts since {day}",
        "take {name} off the newsletter",
    ),
}
_OPENERS = (
    "",
    "",
    "Hi, ",
    "Hello, ",
    "Good morning, ",
    "Dear team, ",
    "Hello, this is {name}, ",
    "Hi there, {name} here, ",
    "Excuse me, ",
    "Quick question: ",
    "Writing from {town}: ",
)
_CLOSERS = (
    "",
    "",
    ". Thanks",
    ". Thank you, {name}",
    ". Can you help",
    ". Regards, {name}",
    ". Please answer soon",
    ". I hope to hear from you by {day}",
    ". Greetings from {town}",
    ". It is about a present for {name}",
    ". I am a customer since last year",
)


def request(rng: random.Random, words: Lexicon) -> Item:
    """Write a request; its answer is the intent's label."""
    label = rng.choice(tuple(REQUESTS))
    text = rng.choice(_OPENERS) + rng.choice(REQUESTS[label]) + rng.choice(_CLOSERS)
    filled = text.format(
        name=words.name(rng),
        town=words.town(rng),
        noun=words.noun(rng),
        noun2=words.noun(rng),
        day=rng.choice(DAYS),
        number=rng.randint(1000, 9999),
    )
    return Item(f"{filled[0].upper()}{filled[1:]}.", label)
