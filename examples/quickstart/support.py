"""Requests to a shop's support desk: what the quickstart's `intent` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.nano.recipe.tasks import TaskQuestion
from registry.nano.recipe.words import DAYS

if TYPE_CHECKING:
    import random

    from registry.nano.recipe.words import Lexicon

PROMPT = "Which intent? {input}"

REQUESTS: dict[str, tuple[str, ...]] = {
    "tracking": (
        "has my order {number} left yet",
        "I want to know how far order {number} is",
        "is the {noun} I ordered on its way",
    ),
    "cancellation": (
        "I want to cancel order {number}",
        "please stop my order of the {noun}",
        "I changed my mind and no longer want the {noun}",
    ),
    "returns": (
        "I would like to send the {noun} back",
        "how do I return the {noun}",
        "can I bring back the {noun} I bought on {day}",
    ),
    "refunds": (
        "my refund for the {noun} has not arrived",
        "I still wait for the money back for {number}",
        "when do I get my refund",
    ),
    "damage": (
        "the {noun} arrived broken",
        "there is a crack in the {noun}",
        "my {noun} came with a dent and scratches",
    ),
    "moving": (
        "I moved to {town}, please update my address",
        "send order {number} to {town} instead",
        "how can I correct the delivery address",
    ),
    "duration": (
        "how long does shipping to {town} take",
        "will the {noun} be here by {day}",
        "how many days until a parcel reaches {town}",
    ),
    "postage": (
        "how much is shipping to {town}",
        "what does delivery of a {noun} cost",
        "is postage free for two {noun}s",
    ),
    "invoice": (
        "I need the invoice for order {number}",
        "please mail me a receipt for the {noun}",
        "where can I download my bill",
    ),
    "billing": (
        "I want to pay with another card",
        "how do I switch from card to bank transfer",
        "please change the payment method of order {number}",
    ),
    "declined": (
        "my card was declined for order {number}",
        "the payment page shows an error",
        "I cannot check out, the payment did not go through",
    ),
    "voucher": (
        "do you sell gift cards",
        "how do I redeem a gift card for a {noun}",
        "what is left on my gift card {number}",
    ),
    "coupon": (
        "my discount code {number} does not work",
        "is there a coupon for the {noun}",
        "where do I type in the promo code",
    ),
    "login": (
        "I forgot my password",
        "I cannot log in, please reset my password",
        "the password link of {day} has expired",
    ),
    "email": (
        "I have a new email address",
        "how do I change the email of my login",
        "please replace the old email of {name}",
    ),
    "stock": (
        "is the {noun} in stock",
        "when will the {noun} be available again",
        "do you have any {noun}s left",
    ),
    "warranty": (
        "my {noun} stopped working, is it under warranty",
        "how long is the warranty on the {noun}",
        "I want to use the guarantee for my {noun}",
    ),
    "branch": (
        "where is your nearest shop",
        "do you have a branch in {town}",
        "how do I get to the shop in {town}",
    ),
    "agent": (
        "I want to talk to a human",
        "please let someone call me on {day}",
        "connect me with a real person",
    ),
    "unsubscribe": (
        "please stop sending me the newsletter",
        "unsubscribe me from your mailing list",
        "I get too many adverts since {day}",
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


def request(rng: random.Random, words: Lexicon) -> TaskQuestion:
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
    return TaskQuestion(f"{filled[0].upper()}{filled[1:]}.", label)
