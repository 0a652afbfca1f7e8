"""Kinds of sentences of the toy translations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tlc_jax.data.toy import french, lexicon
from tlc_jax.data.toy.clauses import BE, HAVE, NEGATIONS, Clause
from tlc_jax.data.toy.dice import Dice
from tlc_jax.data.toy.english import compared, named, past
from tlc_jax.data.toy.french import NUMBERS, Noun, Words, agree, conjugate, join, verb
from tlc_jax.data.toy.parts import (
    BEINGS,
    COUNTS,
    DEFINITE,
    FEELINGS,
    FREE,
    OBJECTS,
    OTHERS,
    OUT,
    PERSON,
    TASTES,
    TIMES,
    Parts,
    linked,
    translated,
    weighted,
)
from tlc_jax.data.toy.phrases import PRONOUNS, Phrase, Said, phrase, pronoun, replaced, together
from tlc_jax.data.toy.pools import DeadEnd, adjectives, verbs
from tlc_jax.data.toy.world import World

SHORTEST, LONGEST = 3, 26  # words of a sentence: in English, in either language

_SHOWN = weighted("the*34; a*34; own*16; of*6")
_DEED_TENSES = weighted("present*24; progressive*13; past*33; near*8; future*10; can*4; must*4; want*4")
_AROUND = weighted("inside*5; goal*2; on*2; beside*3; surface*7; box*3")  # where things are
_OPINIONS = tuple(
    verb(entry)
    for entry in ("*think/thought/thought=penser", "*say/said/said=dire", "*believe=croire", "*know/knew/known=savoir")
)
_HOPE = verb("*hope=espérer")
_PREFER = verb("*prefer=préférer")
_UNORDERED = frozenset(
    lexicon.words("lose forget find recognize see meet understand hear")
)  # not what one is told to do
_MOVES = {  # verbs that go with a town or a place: the prepositions for a town, for a place, and in French
    verb("go/went/gone=aller"): ("to", "to", "à"),
    verb("come/came/come=venir"): ("from", "from", "de"),
    verb("come/came/come back=revenir"): ("from", "from", "de"),
    verb("arrive=arriver"): ("in", "at", "à"),
    verb("stay=rester"): ("in", "at", "à"),
    verb("leave/left/left=partir"): ("for", "for", "pour"),
}
_BECOME = verb("~become/became/become=devenir")
_LIVE = verb("*live=habiter")
_BORN = verb("~be/was/been born=naître")
_WHO = Phrase("who", ("qui",), "he")
_NOBODY = Phrase("nobody", ("personne",), "he", negative=True)
_EVERYBODY = Phrase("everybody", ("tout", "le", "monde"), "he")
_WEATHER = {  # by tense
    "present": translated(
        "it rains=il pleut; it snows=il neige; the weather is cold=il fait froid; the weather is hot=il fait chaud"
    ),
    "progressive": translated("it is raining=il pleut; it is snowing=il neige"),
    "past": translated("it was raining=il pleuvait; it was snowing=il neigeait; the weather was cold=il faisait froid"),
}
_LINKS = translated("and=et; and=et; but=mais")
_DESCRIBED = frozenset(
    lexicon.words("thing clothes text food drink furniture vehicle building room opening box idea outdoors")
)
_COMPARED = tuple(
    lexicon.words("animal animal thing clothes text food drink furniture vehicle building room outdoors idea")
)


def _untold(phrase: Phrase) -> bool:
    """Whether the sentence may still have to tell that it is feminine."""
    return phrase.she and not phrase.pronoun and phrase.en[0].islower()


def _gendered(phrase: Phrase) -> bool:
    """Whether French knows its gender and number."""
    return phrase.stands != "you"


def _finish(text: str, mark: str) -> str:
    return f"{text[0].upper()}{text[1:]}{mark}"


def _comma(said: Said) -> Said:
    return f"{said[0]},", (*said[1][:-1], f"{said[1][-1]},")


def _whole(clause: Clause) -> Said:
    return clause.english(), clause.french()


class Writer(Parts):
    """Writes pairs of sentences about the people and towns of a world, by the rolls of one seed."""

    def __init__(self, world: World, dice: Dice) -> None:
        super().__init__(world, dice)
        self._ways: tuple[Callable[[], tuple[Said, str]], ...] = tuple(
            way
            for way, weight in (
                (self.report, 13), (self.own, 6), (self.sequel, 16), (self.reason, 9), (self.when, 5),
                (self.meanwhile, 4), (self.condition, 4), (self.state, 8), (self.comparison, 6), (self.superlative, 3),
                (self.existence, 4), (self.position, 4), (self.possession, 4), (self.taste, 4), (self.passive, 4),
                (self.opinion, 6), (self.question, 10), (self.everyone, 3), (self.profession, 4), (self.age, 2),
                (self.whereabouts, 5), (self.presentation, 3), (self.order, 3),
            )
            for _ in range(weight)
        )  # fmt: skip

    def sentence(self) -> tuple[str, str]:
        """An English sentence and its translation."""
        while True:
            self.begin()
            try:
                (english, words), mark = self.dice.pick(self._ways)()
            except DeadEnd:
                continue
            text = join(words)
            length = len(english.split())
            clumsy = " that that " in english
            if not clumsy and length >= SHORTEST and max(length, len(text.split())) <= LONGEST:
                return _finish(english, mark), _finish(text, f" {mark}" if mark == "?" else mark)

    def report(self) -> tuple[Said, str]:
        """The king is hiding a crown."""
        subject, tense = self.subject(), self.dice.pick(_DEED_TENSES)
        if tense in TIMES and self.dice.chance(0.12):
            clause = self.deed(subject, tense, timed=False)
            if not clause.verb.state:
                return linked(_comma(self.time(tense)), _whole(clause)), "."
        return _whole(self.deed(subject, tense, self.negation(tense))), "."

    def own(self) -> tuple[Said, str]:
        """The baker lost her key."""
        dice = self.dice
        subject = self.until(_gendered, lambda: self.someone(clue=True))
        tense = dice.pick(_DEED_TENSES)
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS | PERSON, "direct"))
        tags = verb.objects - {"person"} | (frozenset(("kin",)) if "person" in verb.objects else frozenset())
        noun = self.noun(tags)
        many = noun.plural() and dice.chance(0.3)
        owned = phrase(noun, PRONOUNS[subject.stands].possessive, many, self.described(noun))
        return _whole(Clause(subject, verb, tense, owned, negation=self.negation(tense))), "."

    def sequel(self) -> tuple[Said, str]:
        """The girl bought a hat, but she lost it."""
        dice = self.dice
        another = dice.chance(0.2)
        subject = self.subject(clue=not another)
        tense = dice.pick(("past", "past", "past", "present", "future", "near"))
        first = self.verb(subject, tense, verbs(subject.tags, OBJECTS, "direct"))
        given = self.until(
            lambda given: given.stands != subject.stands,
            lambda: self.common(self.noun(first.objects - PERSON), FREE, subject.stands),
        )
        actor = self.next(None if another else subject)
        choices = verbs(actor.tags, given.tags, "direct")
        second = self.until(lambda verb: verb.base != first.base, lambda: self.verb(actor, tense, choices))
        follows = Clause(actor, second, tense, replaced(given), negation="not" if dice.chance(0.2) else "")
        link = dice.pick(_LINKS)
        start = _whole(Clause(subject, first, tense, given))
        whole = linked(_comma(start) if link[0] == "but" else start, link, _whole(follows))
        if tense in TIMES and not first.state and dice.chance(0.15):
            whole = linked(_comma(self.time(tense)), whole)
        return whole, "."

    def reason(self) -> tuple[Said, str]:
        """The horses are resting because they are tired."""
        dice = self.dice
        subject = self.subject(clue=True)
        tense = dice.pick(("past", "past", "present", "progressive", "future"))
        main = self.deed(subject, tense, self.negation(tense), avoid=subject.stands, placed=subject.stands != "it")
        then = "past" if tense == "past" else "present"
        if dice.chance(0.1) and not _untold(subject):
            because = dice.pick(_WEATHER["past" if tense == "past" else dice.pick(("present", "progressive"))])
        else:
            because = _whole(self.ground(replaced(subject), then))
        return linked(_whole(main), ("because", ("parce", "que")), because), "."

    def when(self) -> tuple[Said, str]:
        """When the queen arrived, the dog was sleeping."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.5):
            occasion, main = dice.pick(_WEATHER["present"]), _whole(self.deed(self.subject(), "present", timed=False))
        else:
            subject = self.subject(clue=same)
            occasion = _whole(self.deed(subject, "past", avoid=subject.stands, timed=False, placed=False))
            actor = self.next(subject if same else None)
            main = _whole(self.deed(actor, dice.pick(("past", "was doing")), timed=False))
        return self._around(("when", ("quand",)), occasion, main, same), "."

    def _around(self, conjunction: Said, clause: Said, main: Said, first: bool) -> Said:
        """A subordinate clause before or after the main one: before it if that has a pronoun for something in it."""
        clause = linked(conjunction, clause)
        return linked(_comma(clause), main) if first or self.dice.chance(0.5) else linked(main, clause)

    def meanwhile(self) -> tuple[Said, str]:
        """While the king was sleeping, a thief stole the crown."""
        during = self.deed(self.subject(), "was doing", timed=False)
        main = self.deed(self.next(None), self.dice.pick(("past", "past", "was doing")), timed=False)
        return self._around(("while", ("pendant", "que")), _whole(during), _whole(main), False), "."

    def condition(self) -> tuple[Said, str]:
        """If it rains, we will stay at the hotel."""
        dice = self.dice
        same = dice.chance(0.3)
        if not same and dice.chance(0.55):
            case, main = dice.pick(_WEATHER["present"]), self.deed(self.subject(), "future", self.negation("past"))
        else:
            subject = self.subject(clue=same)
            case = _whole(self.deed(subject, "present", dice.pick(("", "", "not")), avoid=subject.stands, timed=False))
            main = self.deed(self.next(subject if same else None), "future")
        return self._around(("if", ("si",)), case, _whole(main), same), "."

    def topic(self) -> Phrase:
        """Something that may be large, red or interesting."""
        return self.common(self.noun(_DESCRIBED), DEFINITE)

    def state(self) -> tuple[Said, str]:
        """The old shoes are dirty. / My sister was hungry."""
        dice = self.dice
        tense = dice.pick(("present", "present", "past", "past", "future"))
        negation = dice.pick(("", "", "", "", "", "not", "never" if tense == "present" else "not", "no longer"))
        if tense == "future":
            negation = negation and "not"
        if dice.chance(0.5):
            return _whole(self.being(self.topic(), tense, negation)), "."
        subject = self.subject()
        if subject.stands == "you" or dice.chance(0.3):
            return _whole(Clause(subject, dice.pick(FEELINGS[:5]), tense, negation=negation)), "."
        return _whole(self.being(subject, tense, negation)), "."

    def comparison(self) -> tuple[Said, str]:
        """The fox is faster than the hens."""
        dice = self.dice
        if dice.chance(0.5):
            one = self.until(_gendered, self.someone)
            two = self.until(lambda two: two.stands != one.stands, lambda: self.someone(OTHERS, "", DEFINITE))
        else:
            kind = frozenset((dice.pick(_COMPARED),))
            one, two = (self.common(self.noun(kind), DEFINITE) for _ in range(2))
        adjective = adjectives(one.tags & two.tags, "grade").pick(dice)
        words = one.agreed(adjective.fr)
        how = dice.pick(("more", "more", "less", "as", "as", "not as"))
        if how == "less" and not compared(adjective.en, "er").startswith("more "):
            how = "more"
        more = {"more": "plus", "less": "moins"}.get(how, "aussi")
        words = one.agreed("meilleur") if how == "more" and adjective.fr == "bon" else (more, *words)
        english = {"more": compared(adjective.en, "er"), "less": f"less {adjective.en}"}.get(how, f"as {adjective.en}")
        beside = PRONOUNS[two.stands].object if two.pronoun else two.en
        rest = (f"{english} {'than' if how in ('more', 'less') else 'as'} {beside}", (*words, *two.behind("que")))
        tense = dice.pick(("present", "present", "past"))
        return _whole(Clause(one, BE, tense, negation="not" if how == "not as" else "", rest=rest)), "."

    def superlative(self) -> tuple[Said, str]:
        """This is the oldest house in the village."""
        dice = self.dice
        if dice.chance(0.5):
            subject = self.until(lambda someone: not someone.many, lambda: self.someone(()))
            noun = self.called(subject, PERSON)
            english, words = _whole(Clause(subject, BE, dice.pick(("present", "present", "past"))))
        else:
            noun = self.noun(frozenset(("building", "outdoors", "animal")))
            english, words = "this is", ("ce", "est")
        adjective = adjectives(noun.tags, "most").pick(dice)
        french_ = "meilleur" if adjective.fr == "bon" else adjective.fr
        before = adjective.place != "after"
        agreed = agree(french_, noun.she, False, noun.fr.split()[0] if before else "")
        most: Words = agreed if french_ == "meilleur" else ("plus", *agreed)
        article = "la" if noun.she else "le"
        row = (article, *most, noun.fr) if before else (article, noun.fr, article, *most)
        where = self._region()
        return (
            f"{english} the {compared(adjective.en, 'est')} {noun.en} in {where[0]}",
            (*words, *row, *where[1]),
        ), "."

    def _region(self) -> Said:
        if self.dice.chance(0.3):
            town = self.town()
            return town, ("de", town)
        place = phrase(self.noun(frozenset(("village", "town", "valley"))), "the")
        return place.en, place.behind("de")

    def called(self, subject: Phrase, tags: frozenset[str]) -> Noun:
        """A noun for what a person is, of the right gender."""
        noun = self.until(lambda noun: noun.she == subject.she or noun.woman is not None, lambda: self.noun(tags))
        return noun.woman if subject.she and noun.woman is not None else noun

    def existence(self) -> tuple[Said, str]:
        """There are three cats under the table."""
        dice = self.dice
        living = dice.chance(0.4)
        noun = self.noun(frozenset(BEINGS) if living else frozenset(("thing", "clothes", "text", "food")))
        tense = dice.pick(("present", "present", "past", "future"))
        many = noun.plural() and dice.chance(0.4)
        missing = tense != "future" and dice.chance(0.2)
        found = self.common(noun, ("a",) if missing else ("a", "a", "number", "several", "a few", "many"), "", many)
        verb_ = {"present": "are" if found.many else "is", "past": "were" if found.many else "was", "future": "will be"}
        has = {"present": "a", "past": "avait", "future": "aura"}[tense]
        where = self.where(OUT if living else _AROUND)
        if missing:
            english, words = f"no {found.bare[0]}", ("il", "ne", "y", has, "pas", "de", *found.bare[1])
        else:
            english, words = found.en, ("il", "y", has, *found.fr)
        return linked((f"there {verb_[tense]} {english}", words), where), "."

    def position(self) -> tuple[Said, str]:
        """The key is in the blue box."""
        dice = self.dice
        tense = dice.pick(("present", "present", "past", "future"))
        thing = dice.chance(0.6)
        if thing:
            subject = self.common(self.noun(frozenset(("thing", "clothes", "text", "animal"))), DEFINITE)
        else:
            subject = self.someone()
        negation = dice.pick(("", "", "", "", "not"))
        where = self.where(_AROUND if thing else OUT)
        return _whole(Clause(subject, BE, tense, negation=negation, rest=where)), "."

    def possession(self) -> tuple[Said, str]:
        """My uncle has two horses."""
        dice = self.dice
        subject, tense = self.someone(), dice.pick(("present", "present", "present", "past", "future"))
        negation = (
            "" if tense == "future" else dice.pick(("", "", "", "not", "never" if tense == "past" else "no longer"))
        )
        if dice.chance(0.3):
            noun = self.noun(frozenset(("kin",)))
            many = noun.plural() and dice.chance(0.7)
            had = phrase(noun, "a" if negation or not many else dice.pick(COUNTS), many)
        else:
            noun = self.noun(OBJECTS - {"drink"})
            had = self.common(noun, ("a",) if negation else ("a", "a", "number", "several", "many"), "")
        return _whole(Clause(subject, HAVE, tense, had, negation=negation)), "."

    def taste(self) -> tuple[Said, str]:
        """Matine prefers tea to coffee."""
        dice = self.dice
        subject, tense = self.someone(), dice.pick(("present", "present", "present", "past"))
        if dice.chance(0.65):
            return _whole(self.likes(subject, tense, dice.pick(("", "", "not")))), "."
        pool = frozenset((dice.pick(("food", "drink", "animal")),))
        one, two = (phrase(noun, "", noun.plural()) for noun in (self.noun(pool), self.noun(pool)))
        rest = (f"to {two.en}", two.behind("à"))
        return _whole(Clause(subject, _PREFER, tense, one, rest=rest)), "."

    def passive(self) -> tuple[Said, str]:
        """The letter was not read by the queen."""
        dice = self.dice
        doer = self.someone((), "") if dice.chance(0.8) else self.common(self.noun(frozenset(("animal",))), FREE)
        choices = verbs(doer.tags, frozenset(), "direct")
        verb = self.until(lambda verb: not verb.state, lambda: self.verb(doer, "past", choices))
        noun = self.noun(verb.objects)
        done = self.common(noun, DEFINITE, "")
        tense = dice.pick(("past", "past", "past", "future"))
        negation = dice.pick(("", "", "", "", "not"))
        by = (f"{verb.participle or past(verb.base)} {verb.particle}".strip() + f" by {doer.en}", ("par", *doer.fr))
        agreed = french.participle(conjugate(verb.fr).participle, done.she, done.many)
        # "a été" is the passé composé of "être", which as a state has the imparfait.
        be = dataclasses.replace(BE, state=tense != "past")
        return _whole(Clause(done, be, tense, negation=negation, rest=(by[0], (agreed, *by[1])))), "."

    def opinion(self) -> tuple[Said, str]:
        """My brother says that the queen has left."""
        dice = self.dice
        thinker = self.someone(clue=True)
        same = _untold(thinker) or dice.chance(0.4)
        subject = self.next(thinker if same else None)
        if dice.chance(0.2):
            thought, verb = self.deed(subject, "future", self.negation("future")), _HOPE
        else:
            verb = dice.pick(_OPINIONS)
            if subject.stands != "you" and dice.chance(0.35):
                thought = self.being(subject, dice.pick(("present", "past")), dice.pick(("", "", "not")))
            else:
                tense = dice.pick(("present", "progressive", "past", "near", "future", "can", "must"))
                thought = self.deed(subject, tense, self.negation(tense))
        start = _whole(Clause(thinker, verb, "present"))
        return linked(start, ("that", ("que",)), _whole(thought)), "."

    def question(self) -> tuple[Said, str]:
        """What did the girl buy?"""
        dice = self.dice
        self._nested = True  # no relative clause between the parts of the verb
        ask = dice.pick(
            (self._whether, self._whether, self._whether, self._why, self._what, self._which, self._who, self._find)
        )
        return ask(), "?"

    def _asked(self) -> Phrase:
        """The subject of a question."""
        return self.subject(("you", "you", "he", "she", "we"))

    def _whether(self) -> Said:
        dice, subject = self.dice, self._asked()
        roll = dice.roll()
        if roll < 0.25 and subject.stands != "you":
            clause = self.being(subject, dice.pick(("present", "past")))
        elif roll < 0.35:
            clause = self.likes(subject, "present")
        else:
            clause = self.deed(subject, dice.pick(("present", "progressive", "past", "near", "future", "can")))
        return clause.english(asked=True), ("est-ce", "que", *clause.french())

    def _why(self) -> Said:
        subject, tense = self._asked(), self.dice.pick(("present", "progressive", "past", "past", "future"))
        english, word = self.dice.pick(translated("why=pourquoi; why=pourquoi; when=quand; where=où; how=comment"))
        if english != "why" and tense == "progressive":
            tense = "past"
        clause = self.until(
            lambda clause: not clause.verb.state and not clause.adverb[0],
            lambda: self.deed(subject, tense, timed=False, placed=False),
        )
        return f"{english} {clause.english(asked=True)}", (*word, "est-ce", "que", *clause.french())

    def _what(self) -> Said:
        subject, tense = self._asked(), self.dice.pick(("progressive", "past", "past", "future", "want", "near"))
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS - {"animal"}, "direct"))
        clause = Clause(subject, verb, tense)
        return f"what {clause.english(asked=True)}", ("qu'est-ce", "que", *clause.french())

    def _which(self) -> Said:
        dice = self.dice
        subject, tense = self._asked(), dice.pick(("progressive", "past", "past", "past", "future", "want"))
        verb = self.verb(subject, tense, verbs(subject.tags, OBJECTS, "direct"))
        noun = self.noun(verb.objects)
        many = noun.plural() and dice.chance(0.4)
        ahead = phrase(noun, "which", many, self.described(noun))
        words = ahead.fr
        if many and dice.chance(0.4):
            ahead = phrase(noun, "many", True)
            ahead, words = dataclasses.replace(ahead, en=f"how {ahead.en}"), ("combien", *ahead.fr[1:])
        clause = Clause(subject, verb, tense, ahead=ahead)
        return f"{ahead.en} {clause.english(asked=True)}", (*words, "est-ce", "que", *clause.french())

    def _who(self) -> Said:
        clause = self.deed(_WHO, self.dice.pick(("present", "progressive", "past", "past", "future", "can")), owner="")
        return _whole(clause)

    def _find(self) -> Said:
        """Where is the key? / How old is the king?"""
        dice = self.dice
        if dice.chance(0.3):
            someone = self.until(lambda one: not one.many, lambda: self.someone((), "", DEFINITE))
            return f"how old is {someone.en}", ("quel", "âge", "a", *someone.fr)
        thing = self.common(self.noun(frozenset(("thing", "clothes", "text", "animal", "person", "goal"))), DEFINITE)
        tense = dice.pick(("present", "present", "past"))
        forms = conjugate("être")
        is_ = (forms.present if tense == "present" else forms.imperfect)[PRONOUNS[thing.stands].voice]
        return f"where {Clause(thing, BE, tense).english(asked=True)}", ("où", is_, *thing.fr)

    def everyone(self) -> tuple[Said, str]:
        """No child wants to drink the milk."""
        dice = self.dice
        determiner = dice.pick(("no", "no", "every", "all the", "", ""))
        if determiner:
            subject = phrase(self.noun(PERSON), determiner, many=determiner == "all the")
        else:
            subject = dice.pick((_NOBODY, _EVERYBODY))
        if dice.chance(0.25):
            return _whole(Clause(subject, dice.pick(TASTES), "present", self.general())), "."
        tense = dice.pick(("present", "progressive", "past", "past", "future", "can", "want"))
        return _whole(self.deed(subject, tense, owner="", timed=not subject.negative)), "."

    def profession(self) -> tuple[Said, str]:
        """Matine is a baker."""
        dice = self.dice
        couple = dice.chance(0.2)
        subject = self.name() if couple or dice.chance(0.6) else pronoun(dice.pick(("he", "she")))
        if couple:
            subject = together(subject, self.name())
        noun = self.called(subject, frozenset(("job",)))
        verb = _BECOME if dice.chance(0.3) else BE
        tense = dice.pick(("past", "future", "want") if verb is _BECOME else ("present", "present", "past"))
        described = () if subject.pronoun or couple else self.described(noun)
        negation = dice.pick(("", "", "", "", "not"))
        what = phrase(noun, "a", couple, described)
        english = named(noun, True) if couple else what.en
        words = what.fr if described else (noun.frs if couple else noun.fr,)
        return _whole(Clause(subject, verb, tense, negation=negation, rest=(english, words))), "."

    def age(self) -> tuple[Said, str]:
        """His cousin was twelve years old."""
        number = self.dice.pick(tuple(NUMBERS))
        tense = self.dice.pick(("present", "present", "past"))
        subject = self.subject()
        words = conjugate("avoir")
        voice = PRONOUNS[subject.stands].voice
        has = (words.present if tense == "present" else words.imperfect)[voice]
        is_ = Clause(subject, BE, tense).english()
        return (f"{is_} {number} years old", (*subject.fr, has, NUMBERS[number], "ans")), "."

    def whereabouts(self) -> tuple[Said, str]:
        """She comes from Stegark. / We are going to the market."""
        dice = self.dice
        subject = self.until(_gendered, self.someone)
        town = self.town()
        roll = dice.roll()
        if roll < 0.2:
            tense = dice.pick(("present", "present", "past"))
            return _whole(
                Clause(subject, _LIVE, tense, negation=self.negation(""), rest=(f"in {town}", ("à", town)))
            ), "."
        if roll < 0.3:
            return _whole(Clause(subject, _BORN, "past", rest=(f"in {town}", ("à", town)))), "."
        verb = dice.pick(tuple(_MOVES))
        tense = dice.pick(_DEED_TENSES)
        to_town, to_place, preposition = _MOVES[verb]
        if dice.chance(0.5):
            rest: Said = (f"{to_town} {town}", (preposition, town))
        else:
            place = self.common(self.noun(frozenset(("goal",))), ("the", "the", "the", "own", "this"), "", many=False)
            rest = (f"{to_place} {place.en}", place.behind(preposition))
        if tense in TIMES and dice.chance(0.3):
            rest = linked(rest, self.time(tense))
        return _whole(Clause(subject, verb, tense, negation=self.negation(tense), rest=rest)), "."

    def presentation(self) -> tuple[Said, str]:
        """These are the king's horses."""
        dice = self.dice
        shown = self.common(self.noun(OBJECTS | {"person", "kin", "building", "instrument"}), _SHOWN)
        that = dice.chance(0.4)
        negated = dice.chance(0.2)
        if shown.stands == "they":
            english, words = ("those are" if that else "these are"), ("sont",)
        else:
            english, words = ("that is" if that else "this is"), ("est",)
        what = shown.bare[0] if shown.article == "some" else shown.en
        if negated:
            return (f"{english} not {what}", ("ce", "ne", *words, "pas", *shown.fr)), "."
        return (f"{english} {what}", ("ce", *words, *shown.fr)), "."

    def order(self) -> tuple[Said, str]:
        """Do not close the door."""
        dice = self.dice
        choices = verbs(PERSON, frozenset(), "direct")
        verb = self.until(lambda verb: not verb.state and verb.base not in _UNORDERED, lambda: choices.pick(dice))
        negation = dice.pick(("", "", "", "not", "never"))
        told = self.common(self.noun(verb.objects), DEFINITE if negation else FREE, "you")
        start = {"": "", "not": "do not ", "never": "never "}[negation]
        ne = ("ne",) if negation else ()
        verb_ = f"{start}{verb.base} {verb.particle}".strip()
        return (f"{verb_} {told.en}", (*ne, conjugate(verb.fr).present[3], *NEGATIONS[negation], *told.fr)), "."
