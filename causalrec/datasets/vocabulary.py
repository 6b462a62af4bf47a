"""The words that titles are written with: tables only, in the order of the latent levels."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """Words of one topic: who or what, what it does, and where."""

    name: str
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    places: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(";"))


TOPICS = (
    Topic(
        "football",
        _words(
            "goalkeeper; striker; centre back; midfielder; team captain; football coach; referee; penalty "
            "kick; free kick; corner kick; header; football squad; league title; cup final; transfer "
            "window; winger; linesman; football academy; derby match; relegation battle; hat-trick; own "
            "goal; back four; kick-off; substitute; football club; playmaker; goal line"
        ),
        _words("praised; applauded; contested; replayed; scouted; booed"),
        _words(
            "at the stadium; on the terraces; in the dressing room; on the pitch; in extra time; at the "
            "training ground"
        ),
    ),
    Topic(
        "cooking",
        _words(
            "bread recipe; lentil soup; roast chicken; pasta sauce; risotto; apple pie; curry paste; "
            "sourdough loaf; vegetable stew; omelette; chocolate cake; salad dressing; noodle broth; "
            "dumpling; cheese board; pancake; lamb casserole; fish pie; garlic butter; pastry crust; rice "
            "pudding; marinade; onion tart; flatbread; tomato chutney; custard; gravy; baked potato"
        ),
        _words("simmered; baked; tasted; stirred; seasoned; served"),
        _words(
            "in the kitchen; on the stove; at the dinner table; in the oven; at the bakery; in a family "
            "restaurant"
        ),
    ),
    Topic(
        "space",
        _words(
            "comet; moon landing; space telescope; Mars rover; asteroid; galaxy; rocket launch; space "
            "station; astronaut; black hole; solar flare; nebula; satellite; lunar crater; supernova; "
            "spacewalk; planet; meteor shower; star cluster; orbit; ring of Saturn; moon of Jupiter; "
            "cosmic dust; launch pad; eclipse; observatory; space capsule; exoplanet"
        ),
        _words("observed; photographed; tracked; measured; launched; mapped"),
        _words(
            "in deep space; above the atmosphere; on the lunar surface; in the night sky; at mission "
            "control; beyond Neptune"
        ),
    ),
    Topic(
        "money",
        _words(
            "savings account; mortgage rate; pension plan; tax return; credit card; household budget; "
            "index fund; interest rate; bank loan; stock portfolio; government bond; insurance policy; "
            "dividend; pay rise; overdraft; inheritance tax; share price; exchange rate; debt plan; "
            "rental income; investment trust; cash deposit; annuity; mortgage lender; financial adviser; "
            "inflation figure; bank fee; savings rate"
        ),
        _words("compared; calculated; negotiated; invested; refinanced; audited"),
        _words(
            "at the bank; on the stock market; in the annual budget; at the tax office; in the money "
            "pages; on the balance sheet"
        ),
    ),
    Topic(
        "music",
        _words(
            "violin concerto; guitar solo; jazz trio; choir; piano sonata; drummer; folk song; opera "
            "singer; symphony; debut album; string quartet; bass line; conductor; saxophone; cello suite; "
            "ballad; rock band; live album; songwriter; trumpet player; melody; chamber orchestra; "
            "synthesiser; music festival; vinyl record; lullaby; church organ; encore"
        ),
        _words("played; recorded; rehearsed; sung; performed; composed"),
        _words(
            "in the concert hall; on stage; at the recording studio; at the jazz club; in the orchestra "
            "pit; on the radio"
        ),
    ),
    Topic(
        "medicine",
        _words(
            "vaccine; blood test; heart surgeon; hospital nurse; painkiller; cancer drug; family doctor; "
            "asthma inhaler; hip operation; antibiotic; diabetes clinic; brain scan; allergy treatment; "
            "blood pressure tablet; midwife; physiotherapist; flu jab; stroke ward; eye operation; kidney "
            "transplant; sleep clinic; dentist; pharmacist; cholesterol test; medical trial; ambulance "
            "crew; fever remedy; X-ray"
        ),
        _words("prescribed; tested; diagnosed; treated; examined; monitored"),
        _words(
            "at the hospital; in the clinic; on the ward; at the doctor's surgery; in the operating "
            "theatre; at the pharmacy"
        ),
    ),
    Topic(
        "gardening",
        _words(
            "rose bush; vegetable patch; compost heap; tulip bulb; apple tree; lawn; flower bed; "
            "greenhouse; tomato plant; hedge; herb garden; rhubarb; wildflower meadow; seedling; garden "
            "shed; potting soil; lavender border; climbing bean; fruit bush; daffodil; pruning saw; "
            "raised bed; garden pond; clematis; fern; seed packet; leaf mould; strawberry bed"
        ),
        _words("planted; pruned; watered; sown; weeded; mulched"),
        _words(
            "in the garden; on the allotment; at the plant nursery; by the garden fence; in the flower "
            "border; under glass"
        ),
    ),
    Topic(
        "motoring",
        _words(
            "electric car; diesel engine; gearbox; family estate car; hatchback; sports car; brake disc; "
            "car battery; winter tyre; clutch; car dealership; steering wheel; motorcycle; delivery van; "
            "petrol engine; roof rack; charging cable; exhaust pipe; headlamp; dashboard; used car; spark "
            "plug; suspension; camper van; seat belt; convertible; fuel pump; parking sensor"
        ),
        _words("driven; repaired; parked; test-driven; serviced; overtaken"),
        _words(
            "on the motorway; in the garage; at the car showroom; on a country road; at the petrol "
            "station; on the race track"
        ),
    ),
)

SENTIMENT = (  # from −2 to +2: (adjectives before the noun, remarks on it)
    (
        _words("horrible; awful; terrible"),
        _words("a horrible, hated disaster; an awful, miserable disaster; a terrible, hated failure"),
    ),
    (
        _words("disappointing; unpleasant; poor"),
        _words("rather disappointing and poor; a bit unpleasant and poor; poor and rather disappointing"),
    ),
    (
        _words("ordinary; usual; typical"),
        _words("nothing out of the ordinary; neither good nor bad; ordinary as ever"),
    ),
    (
        _words("pleasant; likeable; good"),
        _words("rather pleasant and good; quite likeable and pleasant; good and quite enjoyable"),
    ),
    (
        _words("wonderful; superb; delightful"),
        _words("a wonderful, beloved triumph; a superb, joyful triumph; a delightful, beloved success"),
    ),
)

QUALITY = (  # from −2 to +2: what the piece says of itself
    _words("anonymous unchecked gossip; unchecked anonymous rumour; anonymous made-up gossip"),
    _words("hasty rough notes; quick rough jottings; hurried rough notes"),
    _words("brief news item; short news item; daily news item"),
    _words("detailed background report; full background report; long background report"),
    _words(
        "verified expert investigation; expert-checked scientific study; verified scientific investigation"
    ),
)
