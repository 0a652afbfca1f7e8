"""Sentences of the toy translations that tell how things are: qualities, places, possessions, opinions."""

from __future__ import annotations

import dataclasses

from tlc_jax.data.toy import french, lexicon
from tlc_jax.data.toy.clauses import BE, HAVE, Clause
from tlc_jax.data.toy.dictionary import NUMBERS, Noun, verb
from tlc_jax.data.toy.english import compared, named, past
from tlc_jax.data.toy.french import Words, agree, conjugate
from tlc_jax.data.toy.parts import Parts, gendered, linked, rendered, untold
from tlc_jax.data.toy.parts_tables import (
    BEINGS,
    COUNTS,
    DEED_TENSES,
    DEFINITE,
    FEELINGS,
    FREE,
    OBJECTS,
    OTHERS,
    OUT,
    PERSON,
    TASTES,
    TIMES,
    weighted,
)
from tlc_jax.data.toy.phrases import PRONOUNS, Phrase, Said, phrase, pronoun, together
from tlc_jax.data.toy.pools import adjectives, verbs

_SHOWN = weighted("the*34; a*34; own*16; of*6")
_AROUND = weighted("inside*5; goal*2; on*2; beside*3; surface*7; box*3")  # where things are
_OPINIONS = tuple(
    verb(entry)
    for entry in ("*think/thought/thought=penser", "*say/said/said=dire", "*believe=croire", "*know/knew/known=savoir")
)
_HOPE = verb("*hope=espérer")
_PREFER = verb("*prefer=préférer")
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
_NOBODY = Phrase("nobody", ("personne",), "he", negative=True)
_EVERYBODY = Phrase("everybody", ("tout", "le", "monde"), "he")
_DESCRIBED = frozenset(
    lexicon.words("thing clothes text food drink furniture vehicle building room opening box idea outdoors")
)
_COMPARED = tuple(
    lexicon.words("animal animal thing clothes text food drink furniture vehicle building room outdoors idea")
)


class Descriptions(Parts):
    """Sentences about how things are."""

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
            return rendered(self.being(self.topic(), tense, negation)), "."
        subject = self.subject()
        if subject.stands == "you" or dice.chance(0.3):
            return rendered(Clause(subject, dice.pick(FEELINGS[:5]), tense, negation=negation)), "."
        return rendered(self.being(subject, tense, negation)), "."

    def comparison(self) -> tuple[Said, str]:
        """The fox is faster than the hens."""
        dice = self.dice
        if dice.chance(0.5):
            one = self.until(gendered, self.someone)
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
        return rendered(Clause(one, BE, tense, negation="not" if how == "not as" else "", rest=rest)), "."

    def superlative(self) -> tuple[Said, str]:
        """This is the oldest house in the village."""
        dice = self.dice
        if dice.chance(0.5):
            subject = self.until(lambda someone: not someone.many, lambda: self.someone(()))
            noun = self.called(subject, PERSON)
            english, words = rendered(Clause(subject, BE, dice.pick(("present", "present", "past"))))
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
        return rendered(Clause(subject, BE, tense, negation=negation, rest=where)), "."

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
        return rendered(Clause(subject, HAVE, tense, had, negation=negation)), "."

    def taste(self) -> tuple[Said, str]:
        """Matine prefers tea to coffee."""
        dice = self.dice
        subject, tense = self.someone(), dice.pick(("present", "present", "present", "past"))
        if dice.chance(0.65):
            return rendered(self.likes(subject, tense, dice.pick(("", "", "not")))), "."
        pool = frozenset((dice.pick(("food", "drink", "animal")),))
        one, two = (phrase(noun, "", noun.plural()) for noun in (self.noun(pool), self.noun(pool)))
        rest = (f"to {two.en}", two.behind("à"))
        return rendered(Clause(subject, _PREFER, tense, one, rest=rest)), "."

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
        return rendered(Clause(done, be, tense, negation=negation, rest=(by[0], (agreed, *by[1])))), "."

    def opinion(self) -> tuple[Said, str]:
        """My brother says that the queen has left."""
        dice = self.dice
        thinker = self.someone(clue=True)
        same = untold(thinker) or dice.chance(0.4)
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
        start = rendered(Clause(thinker, verb, "present"))
        return linked(start, ("that", ("que",)), rendered(thought)), "."

    def everyone(self) -> tuple[Said, str]:
        """No child wants to drink the milk."""
        dice = self.dice
        determiner = dice.pick(("no", "no", "every", "all the", "", ""))
        if determiner:
            subject = phrase(self.noun(PERSON), determiner, many=determiner == "all the")
        else:
            subject = dice.pick((_NOBODY, _EVERYBODY))
        if dice.chance(0.25):
            return rendered(Clause(subject, dice.pick(TASTES), "present", self.general())), "."
        tense = dice.pick(("present", "progressive", "past", "past", "future", "can", "want"))
        return rendered(self.deed(subject, tense, owner="", timed=not subject.negative)), "."

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
        return rendered(Clause(subject, verb, tense, negation=negation, rest=(english, words))), "."

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
        subject = self.until(gendered, self.someone)
        town = self.town()
        roll = dice.roll()
        if roll < 0.2:
            tense = dice.pick(("present", "present", "past"))
            return rendered(
                Clause(subject, _LIVE, tense, negation=self.negation(""), rest=(f"in {town}", ("à", town)))
            ), "."
        if roll < 0.3:
            return rendered(Clause(subject, _BORN, "past", rest=(f"in {town}", ("à", town)))), "."
        verb = dice.pick(tuple(_MOVES))
        tense = dice.pick(DEED_TENSES)
        to_town, to_place, preposition = _MOVES[verb]
        if dice.chance(0.5):
            rest: Said = (f"{to_town} {town}", (preposition, town))
        else:
            place = self.common(self.noun(frozenset(("goal",))), ("the", "the", "the", "own", "this"), "", many=False)
            rest = (f"{to_place} {place.en}", place.behind(preposition))
        if tense in TIMES and dice.chance(0.3):
            rest = linked(rest, self.time(tense))
        return rendered(Clause(subject, verb, tense, negation=self.negation(tense), rest=rest)), "."

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
