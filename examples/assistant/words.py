"""The words that the assistant's guards are made of; ours, free to use."""

from __future__ import annotations

CAPITALS = """
France=Paris Germany=Berlin Italy=Rome Spain=Madrid Portugal=Lisbon England=London Ireland=Dublin
Scotland=Edinburgh Wales=Cardiff Norway=Oslo Sweden=Stockholm Finland=Helsinki Denmark=Copenhagen
Iceland=Reykjavik Poland=Warsaw Austria=Vienna Hungary=Budapest Greece=Athens Turkey=Ankara
Russia=Moscow Ukraine=Kyiv Romania=Bucharest Bulgaria=Sofia Serbia=Belgrade Croatia=Zagreb
Belgium=Brussels Switzerland=Bern Japan=Tokyo China=Beijing India=Delhi Thailand=Bangkok
Vietnam=Hanoi Indonesia=Jakarta Malaysia=Kuala_Lumpur Philippines=Manila Pakistan=Islamabad
Bangladesh=Dhaka Nepal=Kathmandu Iran=Tehran Iraq=Baghdad Syria=Damascus Lebanon=Beirut
Jordan=Amman Israel=Jerusalem Egypt=Cairo Libya=Tripoli Tunisia=Tunis Algeria=Algiers
Morocco=Rabat Kenya=Nairobi Ethiopia=Addis_Ababa Ghana=Accra Nigeria=Abuja Senegal=Dakar
Zimbabwe=Harare Zambia=Lusaka Angola=Luanda Sudan=Khartoum Somalia=Mogadishu Uganda=Kampala
Canada=Ottawa Mexico=Mexico_City Cuba=Havana Jamaica=Kingston Brazil=Brasilia Argentina=Buenos_Aires
Chile=Santiago Peru=Lima Colombia=Bogota Venezuela=Caracas Ecuador=Quito Bolivia=La_Paz
Uruguay=Montevideo Australia=Canberra New_Zealand=Wellington Fiji=Suva Mongolia=Ulaanbaatar
Afghanistan=Kabul Qatar=Doha Oman=Muscat Yemen=Sanaa Kuwait=Kuwait_City Cyprus=Nicosia
Malta=Valletta
Latvia=Riga Estonia=Tallinn Lithuania=Vilnius Slovenia=Ljubljana Slovakia=Bratislava Albania=Tirana
Haiti=Port-au-Prince Panama=Panama_City Guatemala=Guatemala_City Nicaragua=Managua
Honduras=Tegucigalpa
Paraguay=Asuncion Cambodia=Phnom_Penh Laos=Vientiane Taiwan=Taipei Singapore=Singapore
"""
"""Country and capital; an underscore is a space."""

OPPOSITES = """
hot=cold big=small tall=short fast=slow happy=sad young=old rich=poor strong=weak hard=soft
light=dark clean=dirty full=empty open=closed wet=dry thick=thin wide=narrow deep=shallow
loud=quiet early=late near=far high=low up=down left=right inside=outside above=below
front=back first=last new=old good=bad right=wrong true=false yes=no day=night summer=winter
black=white hello=goodbye love=hate friend=enemy war=peace life=death birth=death win=lose
buy=sell give=take push=pull come=go start=stop begin=end laugh=cry remember=forget
find=lose arrive=leave build=destroy ask=answer teach=learn borrow=lend increase=decrease
accept=refuse appear=disappear agree=disagree attack=defend create=destroy enter=exit
freeze=melt float=sink rise=fall save=spend wake=sleep whisper=shout sweet=sour smooth=rough
sharp=blunt tight=loose brave=cowardly calm=nervous careful=careless cheap=expensive
clever=stupid common=rare cruel=kind easy=difficult fat=thin generous=selfish
guilty=innocent heavy=light honest=dishonest hungry=full important=unimportant
interesting=boring legal=illegal lucky=unlucky major=minor modern=ancient natural=artificial
noisy=silent polite=rude possible=impossible private=public proud=humble pure=impure
quick=slow ripe=unripe safe=dangerous same=different simple=complex slim=fat steep=flat
straight=crooked temporary=permanent tidy=messy tiny=huge useful=useless visible=invisible
warm=cool wild=tame wise=foolish win=lose always=never before=after more=less
many=few everything=nothing north=south east=west male=female husband=wife king=queen
brother=sister uncle=aunt heaven=hell hero=villain victory=defeat success=failure
question=answer problem=solution profit=loss beginning=end past=future ceiling=floor
top=bottom arrival=departure strength=weakness
import=export internal=external interior=exterior maximum=minimum majority=minority
optimist=pessimist amateur=professional ancestor=descendant awake=asleep blame=praise bold=timid
bride=groom cheerful=gloomy combine=separate complete=incomplete compulsory=voluntary
connect=disconnect convex=concave correct=incorrect dawn=dusk debit=credit deny=admit despair=hope
divide=multiply add=subtract employer=employee even=odd expand=contract explicit=implicit
fact=fiction fertile=barren fresh=stale gather=scatter giant=dwarf guest=host horizontal=vertical
include=exclude inferior=superior inhale=exhale junior=senior lazy=diligent liquid=solid
lock=unlock logical=illogical loyal=disloyal mature=immature moral=immoral normal=abnormal
obey=disobey passive=active patient=impatient positive=negative regular=irregular
reward=punishment rural=urban servant=master sober=drunk moving=stationary sunny=cloudy
sunrise=sunset tense=relaxed theory=practice transparent=opaque truth=lie vacant=occupied
virtue=vice wealth=poverty wholesale=retail
"""
"""A word and its opposite."""

CATEGORIES = {
    "animal": "dog cat horse cow pig sheep goat lion tiger bear wolf fox rabbit mouse rat elephant "
    "giraffe zebra monkey camel deer squirrel kangaroo panda leopard cheetah hippo rhino donkey "
    "buffalo moose otter beaver hamster hedgehog badger gorilla chimpanzee koala raccoon skunk "
    "seal whale dolphin shark crocodile snake lizard frog turtle",
    "fruit": "apple banana orange grape strawberry cherry peach pear plum mango pineapple melon "
    "watermelon lemon lime kiwi apricot blueberry raspberry blackberry fig coconut papaya "
    "grapefruit tangerine nectarine cranberry pomegranate guava lychee",
    "colour": "red blue green yellow purple pink brown black white grey violet turquoise beige "
    "crimson scarlet maroon indigo magenta lavender navy teal cyan tan ivory",
    "vehicle": "car bus truck bicycle motorcycle train tram ship boat ferry airplane helicopter "
    "van taxi scooter tractor submarine yacht canoe ambulance lorry rocket sledge limousine",
    "tool": "hammer screwdriver saw drill wrench pliers axe shovel rake chisel ladder spanner "
    "crowbar hoe sickle mallet clamp tweezers scissors trowel",
    "piece of furniture": "table chair sofa bed desk wardrobe bookcase cupboard stool bench "
    "armchair couch dresser nightstand sideboard cabinet cradle bunk",
    "body part": "arm leg hand foot head nose ear eye mouth finger toe knee elbow shoulder neck "
    "chin ankle wrist thumb tongue lip hip forehead cheek",
    "job": "doctor teacher nurse lawyer engineer farmer baker butcher plumber carpenter painter "
    "pilot sailor soldier judge dentist surgeon librarian waiter chef tailor barber architect "
    "electrician mechanic journalist accountant firefighter",
    "country": "France Germany Italy Spain Japan China India Brazil Mexico Canada Egypt Kenya "
    "Norway Sweden Poland Greece Turkey Peru Chile Cuba Australia Vietnam Thailand Portugal",
    "musical instrument": "piano guitar violin flute drum trumpet cello harp saxophone clarinet "
    "trombone tuba banjo accordion oboe xylophone harmonica ukulele mandolin bassoon",
    "sport": "football tennis basketball baseball golf hockey rugby cricket volleyball boxing "
    "swimming skiing surfing wrestling badminton judo karate rowing skating archery fencing",
    "drink": "water milk coffee tea juice lemonade beer wine cola whisky vodka cocoa cider rum gin",
}

NO_ARTICLE = ("colour", "country", "drink", "sport")
"""Kinds whose words stand without `a`."""

NOUNS = """
cat dog book car tree house bird flower chair table pen pencil school teacher student friend girl
boy mother father brother sister king queen doctor nurse farmer apple orange banana river lake
mountain road street bridge door window wall floor roof garden park shop market bank letter word
song game ball doll toy hat coat shirt shoe sock glove ring watch clock lamp phone computer camera
picture map ticket train plane ship boat truck bicycle wheel engine box bus glass dress class
church beach watch brush dish bush fox tax kiss boss city baby lady story party country family
berry cherry penny puppy key boy day toy monkey donkey valley leaf knife wife life wolf half shelf
thief loaf man woman child foot tooth goose mouse hero potato tomato photo piano radio video
island ocean forest desert village castle tower palace prison hospital hotel kitchen bedroom
bathroom blanket pillow curtain carpet mirror bottle cup plate spoon fork bowl basket bag wallet
button needle thread rope chain hammer nail screw drill ladder shovel bucket candle match stove
oven fridge cookie cake pie sandwich egg onion carrot bean pea nut seed root branch stem petal
insect spider ant bee worm snake lizard frog turtle rabbit horse cow pig goat lamb chicken duck
eagle owl crow robin tiger lion bear elephant giraffe camel zebra kangaroo
"""

ADJECTIVES = (
    "red blue green old new small large quiet bright heavy soft cold warm clean round happy"
)

NAMES = """
Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Leo Maria Nick Olivia Paul Rosa Sam Tina
Victor Wendy Adam Beth Carl Diana Eric Fiona George Helen Ivan Julia Kevin Laura Martin Nora Oscar
Peter Rachel Simon Tara Alice Brian Cathy Derek Ella Felix Gina Hugo Ines Jonas Karen Lucas Megan
Noah Paula Robert Sarah Thomas Vera William
"""

LIKES = """
apples bananas cherries pizza pasta bread cheese chocolate coffee tea milk rice soup fish chicken
football tennis golf chess music dancing painting reading swimming running hiking cooking gardening
fishing sailing skiing cycling horses dogs cats birds trains cars planes boats flowers roses
mountains beaches forests books films poems songs puzzles
"""

PEOPLE = """
France=French Germany=German Italy=Italian Spain=Spanish Portugal=Portuguese England=English
Ireland=Irish Scotland=Scottish Wales=Welsh Norway=Norwegian Sweden=Swedish Finland=Finnish
Denmark=Danish Iceland=Icelandic Poland=Polish Austria=Austrian Hungary=Hungarian Greece=Greek
Turkey=Turkish Russia=Russian Ukraine=Ukrainian Romania=Romanian Bulgaria=Bulgarian Serbia=Serbian
Croatia=Croatian Belgium=Belgian Switzerland=Swiss Japan=Japanese China=Chinese India=Indian
Thailand=Thai Vietnam=Vietnamese Indonesia=Indonesian Malaysia=Malaysian Philippines=Filipino
Pakistan=Pakistani Bangladesh=Bangladeshi Nepal=Nepalese Iran=Iranian Iraq=Iraqi Syria=Syrian
Lebanon=Lebanese Jordan=Jordanian Israel=Israeli Egypt=Egyptian Libya=Libyan Tunisia=Tunisian
Algeria=Algerian Morocco=Moroccan Kenya=Kenyan Ethiopia=Ethiopian Ghana=Ghanaian Nigeria=Nigerian
Senegal=Senegalese Zimbabwe=Zimbabwean Zambia=Zambian Angola=Angolan Sudan=Sudanese Somalia=Somali
Uganda=Ugandan Canada=Canadian Mexico=Mexican Cuba=Cuban Jamaica=Jamaican Brazil=Brazilian
Argentina=Argentine Chile=Chilean Peru=Peruvian Colombia=Colombian Venezuela=Venezuelan
Ecuador=Ecuadorian Bolivia=Bolivian Uruguay=Uruguayan Australia=Australian New_Zealand=New_Zealander
Fiji=Fijian Mongolia=Mongolian Afghanistan=Afghan Qatar=Qatari Oman=Omani Yemen=Yemeni
Kuwait=Kuwaiti Cyprus=Cypriot Malta=Maltese Latvia=Latvian Estonia=Estonian Lithuania=Lithuanian
Slovenia=Slovenian Slovakia=Slovak Albania=Albanian Haiti=Haitian Panama=Panamanian
Guatemala=Guatemalan Nicaragua=Nicaraguan Honduras=Honduran Paraguay=Paraguayan Cambodia=Cambodian
Laos=Laotian Taiwan=Taiwanese Singapore=Singaporean
"""
"""A country and its people."""

IRREGULAR = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "leaf": "leaves",
    "knife": "knives",
    "wife": "wives",
    "life": "lives",
    "wolf": "wolves",
    "half": "halves",
    "shelf": "shelves",
    "thief": "thieves",
    "loaf": "loaves",
    "hero": "heroes",
    "potato": "potatoes",
    "tomato": "tomatoes",
}

DISHES = (
    "pizza", "burger", "salad", "soup", "wrap", "coffee", "tea", "lemonade", "milkshake", "cake",
    "curry", "burrito", "pancake", "waffle", "omelette", "smoothie",
)  # fmt: skip

ORDER_SIZES = ("small", "medium", "large")

COUNTS = ("one", "two", "three", "four", "five", "six")

ORDERS = (
    "{count} {size} {item} for {name}, please.",
    "Hello, I'd like {count} {size} {item}. My name is {name}.",
    "Could you make {count} {size} {item} for {name}?",
    "{name} here. I want to order {count} {size} {item}.",
    "Can I get {count} {size} {item}? It's for {name}.",
    "Please bring {count} {size} {item} to {name}.",
    "Hi, this is {name}, {count} {size} {item} to take away, thanks.",
    "We need {count} {size} {item}; put it on {name}'s bill.",
)
