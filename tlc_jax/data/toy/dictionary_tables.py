"""The words of the toy translations in both languages. Each table goes by what its words may be combined with."""

from __future__ import annotations

from collections.abc import Mapping

# Nouns: "english[/plural]=french[/plural] gender", or "english=masculine|feminine" where English is the same for both.
NOUN_TABLE: Mapping[str, str] = {
    "person": """
        man/men=homme m; woman/women=femme f; king=roi m; queen=reine f; prince=prince m;
        princess=princesse f; lady=dame f; witch=sorcière f; giant=géant m; hero/heroes=héros m; knight=chevalier m;
        nun=religieuse f; monk=moine m; thief/thieves=voleur m; bishop=évêque m;
        neighbour=voisin|voisine; friend=ami|amie; guest=invité|invitée; tourist=touriste|touriste;
        traveller=voyageur|voyageuse; prisoner=prisonnier|prisonnière; customer=client|cliente;
        beggar=mendiant|mendiante; stranger=inconnu|inconnue""",
    "person young": """
        boy=garçon m; girl=fille f; child/children=enfant|enfant; pupil=élève|élève; orphan=orphelin|orpheline""",
    "person job": """
        soldier=soldat m; sailor=marin m; judge=juge m; captain=capitaine m; painter=peintre m;
        fisherman/fishermen=pêcheur m; policeman/policemen=policier m; actress=actrice f; waitress=serveuse f;
        carpenter=menuisier m; postman/postmen=facteur m; doctor=médecin m; engineer=ingénieur m; poet=poète m;
        shepherd=berger m; baker=boulanger|boulangère; singer=chanteur|chanteuse; dancer=danseur|danseuse;
        farmer=fermier|fermière; cook=cuisinier|cuisinière; grocer=épicier|épicière; nurse=infirmier|infirmière;
        butcher=boucher|bouchère; dentist=dentiste|dentiste; lawyer=avocat|avocate; gardener=jardinier|jardinière;
        musician=musicien|musicienne; student=étudiant|étudiante; translator=traducteur|traductrice;
        hairdresser=coiffeur|coiffeuse; magician=magicien|magicienne; chemist=pharmacien|pharmacienne;
        director=directeur|directrice; journalist=journaliste|journaliste; worker=ouvrier|ouvrière""",
    "kin": """
        father=père m; mother=mère f; brother=frère m; sister=sœur f; son=fils m; daughter=fille f; uncle=oncle m;
        aunt=tante f; grandfather=grand-père/grands-pères m; grandmother=grand-mère/grands-mères f; nephew=neveu m;
        niece=nièce f""",
    "animal": """
        dog=chien m; cat=chat m; horse=cheval m; cow=vache f; calf/calves=veau m; goat=chèvre f; pig=cochon m;
        hen=poule f; duck=canard m; goose/geese=oie f; rabbit=lapin m; fox=renard m; wolf/wolves=loup m; bear=ours m;
        mouse/mice=souris f; lion=lion m; tiger=tigre m; elephant=éléphant m; monkey=singe m; donkey=âne m;
        hedgehog=hérisson m; squirrel=écureuil m; snake=serpent m; frog=grenouille f; bee=abeille f; spider=araignée f;
        bull=taureau m; lamb=agneau m; turtle=tortue f; hamster=hamster m; bird=oiseau m; owl=hibou m; swan=cygne m;
        parrot=perroquet m; eagle=aigle m; lobster=homard m""",
    "thing": """
        key=clé f; watch=montre f; knife/knives=couteau m; fork=fourchette f; spoon=cuillère f; candle=bougie f;
        pen=stylo m; pencil=crayon m; ball=balle f; toy=jouet m; doll=poupée f; rope=corde f; stone=pierre f;
        flag=drapeau m; map=carte f; ticket=billet m; coin=pièce f; umbrella=parapluie m; needle=aiguille f;
        hammer=marteau m; axe=hache f; saw=scie f; ladder=échelle f; tool=outil m; blanket=couverture f;
        pillow=oreiller m; photograph=photo f; broom=balai m; picture=tableau m""",
    "thing jewel": "ring=bague f; crown=couronne f; sword=épée f; jewel=bijou m; necklace=collier m",
    "thing fragile": """
        plate=assiette f; cup=tasse f; glass=verre m; bottle=bouteille f; mirror=miroir m; lamp=lampe f;
        clock=horloge f; vase=vase m""",
    "thing box": "bag=sac m; box=boîte f; basket=panier m; suitcase=valise f; bucket=seau m; drawer=tiroir m",
    "thing instrument": """
        flute=flûte f; drum=tambour m; harp=harpe f; violin=violon m; piano=piano m; guitar=guitare f;
        trumpet=trompette f; cello=violoncelle m; accordion=accordéon m""",
    "text": """
        book=livre m; letter=lettre f; newspaper=journal m; poem=poème m; story=histoire f; message=message m;
        novel=roman m; article=article m""",
    "clothes": """
        hat=chapeau m; coat=manteau m; shirt=chemise f; dress=robe f; scarf/scarves=écharpe f; glove=gant m;
        shoe=chaussure f; belt=ceinture f; skirt=jupe f; jacket=veste f; sock=chaussette f""",
    "furniture surface": """
        table=table f; chair=chaise f; bed=lit m; desk=bureau m; shelf/shelves=étagère f; bench=banc m; carpet=tapis m;
        sofa=canapé m; armchair=fauteuil m""",
    "opening": "door=porte f; window=fenêtre f; gate=portail m; wardrobe=armoire f",
    "vehicle": "car=voiture f; lorry=camion m; bus=bus m; taxi=taxi m; tractor=tracteur m",
    "craft": "train=train m; boat=bateau m; plane=avion m; bicycle=vélo m",
    "food": """
        apple=pomme f; pear=poire f; cherry=cerise f; orange=orange f; lemon=citron m; peach=pêche f; plum=prune f;
        tomato/tomatoes=tomate f; melon=melon m; cake=gâteau m; egg=œuf m; carrot=carotte f; onion=oignon m;
        bean=haricot m; cabbage=chou m; mushroom=champignon m; potato/potatoes=pomme de terre f; sandwich=sandwich m;
        sweet=bonbon m; biscuit=biscuit m; nut=noix f; strawberry=fraise f; pie=tarte f""",
    "food mass": """
        bread=pain m; cheese=fromage m; butter=beurre m; meat=viande f; rice=riz m; soup=soupe f; honey=miel m;
        jam=confiture f; chocolate=chocolat m; ham=jambon m; garlic=ail m; ice cream=glace f; salad=salade f""",
    "drink mass": """
        water=eau f; milk=lait m; wine=vin m; tea=thé m; coffee=café m; beer=bière f; lemonade=limonade f;
        cider=cidre m; orange juice=jus d'orange m""",
    "building inside": """
        house=maison f; palace=palais m; tower=tour f; hut=cabane f; shop=magasin m; stable=écurie f; prison=prison f;
        inn=auberge f""",
    "room inside": """
        kitchen=cuisine f; bedroom=chambre f; cellar=cave f; attic=grenier m; living room=salon m; courtyard=cour f;
        corridor=couloir m""",
    "outdoors inside": """
        village=village m; town=ville f; forest=forêt f; garden=jardin m; field=champ m; valley=vallée f; street=rue f;
        cave=grotte f; park=parc m; meadow=pré m""",
    "building goal": """
        castle=château m; church=église f; school=école f; museum=musée m; theatre=théâtre m; library=bibliothèque f;
        hospital=hôpital m; restaurant=restaurant m; bakery=boulangerie f; hotel=hôtel m; bank=banque f; farm=ferme f;
        office=bureau m; factory=usine f; station=gare f; airport=aéroport m; swimming pool=piscine f;
        university=université f""",
    "outdoors goal": "market=marché m; harbour=port m; zoo=zoo m",
    "outdoors on": "beach=plage f; bridge=pont m; square=place f; island=île f; hill=colline f; mountain=montagne f",
    "outdoors beside": """
        river=rivière f; lake=lac m; fountain=fontaine f; tree=arbre m; oak=chêne m; hedge=haie f; wall=mur m;
        well=puits m; statue=statue f""",
    "idea": """
        question=question f; answer=réponse f; song=chanson f; problem=problème m; secret=secret m; rule=règle f;
        language=langue f; lesson=leçon f; game=jeu m; word=mot m; name=nom m; address=adresse f""",
}

# Adjectives: what they are said of (with a minus, what not: "vieux garçon" is a bachelor, "sweet potato" a "patate");
# where they stand in French ("first" of all, "before" the noun, as an "age" does, or "after" it, as do an "origin" and,
# behind that, a "colour", and last a "stuff"; "never": only after "be"); the words.
ADJECTIVE_TABLE: tuple[tuple[str, str, str], ...] = (
    ("animal thing clothes furniture vehicle building room outdoors food text craft -mass", "before", "small=petit"),
    ("building room furniture vehicle craft outdoors", "before", "large=grand"),
    ("animal thing food -mass", "before", "big=gros"),
    ("person kin animal thing clothes furniture vehicle craft building text -young", "age", "old=vieux"),
    ("person animal", "age", "young=jeune"),
    ("animal thing clothes furniture building outdoors instrument text", "first", "beautiful=beau"),
    ("thing clothes furniture building", "first", "pretty=joli"),
    ("food drink job text idea", "first", "good=bon; bad=mauvais"),
    ("thing clothes furniture vehicle building job text rule", "age", "new=nouveau"),
    ("text idea", "before", "long=long"),
    (
        "person kin",
        "never",
        "tall=grand; short=petit; poor=pauvre; alone=seul; ready=prêt; angry=en colère; late=en retard",
    ),
    (
        "person kin job",
        "never",
        "tired=fatigué; ill=malade; busy=occupé; sad=triste; happy=heureux; proud=fier; worried=inquiet",
    ),
    (
        "person",
        "after",
        "rich=riche; famous=célèbre; kind=gentil; brave=courageux; lazy=paresseux; jealous=jaloux; generous=généreux;"
        " polite=poli; clever=intelligent; strong=fort; weak=faible; shy=timide; honest=honnête; patient=patient;"
        " nervous=nerveux; careful=prudent; serious=sérieux; blind=aveugle; deaf=sourd; cruel=cruel; curious=curieux",
    ),
    ("animal", "after", "wild=sauvage; dangerous=dangereux; faithful=fidèle; fast=rapide; slow=lent; hungry=affamé"),
    ("thing", "after", "heavy=lourd; light=léger; strange=étrange; useful=utile; precious=précieux"),
    ("thing clothes furniture vehicle building room", "after", "expensive=cher; dirty=sale; clean=propre"),
    ("furniture", "after", "round=rond; comfortable=confortable"),
    ("blanket pillow scarf coat glove carpet bed", "after", "soft=doux; thick=épais; dry=sec"),
    ("message door room", "after", "secret=secret"),
    ("building outdoors", "after", "quiet=calme; dark=sombre"),
    ("building vehicle", "after", "modern=moderne"),
    ("food -potato", "after", "delicious=délicieux; fresh=frais; warm=chaud; cold=froid; sweet=sucré; bitter=amer"),
    ("text idea", "after", "interesting=intéressant; boring=ennuyeux; difficult=difficile; easy=facile; funny=drôle"),
    ("opening", "never", "open=ouvert; closed=fermé"),
    ("box", "never", "empty=vide; full=plein"),
    ("thing clothes furniture vehicle animal", "colour", "black=noir; white=blanc; grey=gris; brown=brun"),
    (
        "thing clothes furniture vehicle",
        "colour",
        "red=rouge; blue=bleu; green=vert; yellow=jaune; pink=rose; purple=violet",
    ),
    (
        "job vehicle food drink newspaper -bean",
        "origin",
        "French=français; English=anglais; Italian=italien; Spanish=espagnol; German=allemand; Portuguese=portugais",
    ),
    ("table chair bed desk shelf bench box bucket toy ladder", "stuff", "wooden=en bois"),
    ("jewel watch coin", "stuff", "gold=en or"),
)

# Verbs: "english[/past/participle]=french: subjects > objects". A star: a state, which English does not put in the
# progressive, nor French in the passé composé. A tilde: no progressive.
VERB_TABLE = """
    eat/ate/eaten=manger: person animal > food
    drink/drank/drunk=boire: person > drink
    make/made/made=faire: person > cake pie soup jam salad coffee tea bread sandwich
    pick=cueillir: person > apple cherry pear peach plum orange lemon strawberry
    cut/cut/cut=couper: person > food clothes rope
    prepare=préparer: person > food lesson
    taste=goûter: person > food drink
    share=partager: person > food
    pour=verser: person > drink
    order=commander: person > food drink
    buy/bought/bought=acheter: person > thing clothes text furniture vehicle food drink animal building
    sell/sold/sold=vendre: person > thing clothes text furniture vehicle food drink animal building
    ~find/found/found=trouver: person > person animal thing clothes text
    ~lose/lost/lost=perdre: person > thing clothes text animal
    look for=chercher: person > person animal thing clothes text
    look at=regarder: person > person animal thing clothes
    ~see/saw/seen=voir: person animal > person animal building
    ~see/saw/seen=voir: person > thing clothes text vehicle craft outdoors
    take/took/taken=prendre: person > thing clothes text
    hide/hid/hidden=cacher: person > thing clothes text food
    steal/stole/stolen=voler: person > thing clothes food vehicle animal
    keep/kept/kept=garder: person > thing text
    carry=porter: person > thing furniture
    *wear/wore/worn=porter: person > clothes
    wash=laver: person > clothes vehicle fragile
    break/broke/broken=casser: person > fragile toy pencil instrument
    repair=réparer: person > vehicle furniture instrument clock watch umbrella bicycle
    clean=nettoyer: person > thing room furniture vehicle
    paint=peindre: person > furniture opening person animal
    draw/drew/drawn=dessiner: person > person animal thing building
    open=ouvrir: person > opening box bottle letter
    close=fermer: person > opening box
    read/read/read=lire: person > text
    write/wrote/written=écrire: person > text song
    translate=traduire: person > text word
    burn=brûler: person > text furniture
    receive=recevoir: person > text jewel
    ~forget/forgot/forgotten=oublier: person > thing clothes idea
    finish=finir: person > text cake soup
    push=pousser: person > furniture vehicle animal
    drive/drove/driven=conduire: person > vehicle
    borrow=emprunter: person > thing vehicle text clothes
    feed/fed/fed=nourrir: person > animal
    catch/caught/caught=attraper: person > animal ball thief
    follow=suivre: person animal > person animal
    follow=suivre: person > vehicle
    hear/heard/heard=entendre: person animal > person animal
    listen to=écouter: person > person musician
    help=aider: person > person
    thank=remercier: person > person
    invite=inviter: person > person
    meet/met/met=rencontrer: person > person
    kiss=embrasser: person > person
    punish=punir: person > person
    save=sauver: person > person animal
    protect=protéger: person > person animal building
    wait for=attendre: person > person craft bus
    ~recognize=reconnaître: person > person building
    *know/knew/known=connaître: person > person idea
    *love=aimer: person > person animal
    *hate=détester: person > person
    *fear=craindre: person animal > person animal
    *admire=admirer: person > person jewel building
    ~understand/understood/understood=comprendre: person > idea
    explain=expliquer: person > idea
    learn/learnt/learnt=apprendre: person > lesson song language rule word poem
    repeat=répéter: person > question answer word name song
    sing/sang/sung=chanter: person > song
    choose/chose/chosen=choisir: person > thing clothes furniture food text
    touch=toucher: person > thing animal
    hold/held/held=tenir: person > thing
    visit=visiter: person > castle church palace museum zoo village town island
    leave/left/left=quitter: person > building room village town island
    build/built/built=construire: person > building bridge wall
    cross=traverser: person animal > street bridge forest river field park square garden courtyard meadow
    discover=découvrir: person > cave valley island secret village
    greet=saluer: person > person
    congratulate=féliciter: person > person
    encourage=encourager: person > person
    accompany=accompagner: person > person
    deceive=tromper: person > person
    warn=prévenir: person > person
    comfort=consoler: person > person
    accuse=accuser: person > person
    replace=remplacer: person > job furniture lamp
    cure=guérir: person > person
    call=appeler: person > person dog cat
    throw/threw/thrown=jeter: person > ball stone
    watch=observer: person animal > person animal
    bite/bit/bitten=mordre: animal > person animal
    chase=poursuivre: animal > animal person
    attack=attaquer: animal > person animal
    avoid=éviter: animal person > person animal
    wake/woke/woken=réveiller: person animal > person
    bury=enterrer: person animal > thing
    speak/spoke/spoken to=parler à: person > person
    answer=répondre à: person > person
    obey=obéir à: person > person
    phone=téléphoner à: person > person
    smile at=sourire à: person > person
    lie to=mentir à: person > person
    *look like=ressembler à: person > person
    *need=avoir besoin de: person > thing clothes furniture person
    *be/was/been afraid of=avoir peur de: person animal > animal person
    dream/dreamt/dreamt of=rêver de: person > animal jewel person craft
    speak/spoke/spoken about=parler de: person > person idea
    take/took/taken care of=se occuper de: person > person animal garden
    laugh at=se moquer de: person > person
    play=jouer de: person > instrument
    sing/sang/sung=chanter: person
    work=travailler: person
    laugh=rire: person
    cry=pleurer: person
    dance=danser: person
    walk=marcher: person animal
    smile=sourire: person
    travel=voyager: person
    shout=crier: person
    cook=cuisiner: person
    whistle=siffler: person
    snore=ronfler: person
    wait=attendre: person animal
    read/read/read=lire: person
    sleep/slept/slept=dormir: person animal
    run/ran/run=courir: person animal
    swim/swam/swum=nager: person animal
    jump=sauter: person animal
    play=jouer: child boy girl puppy cat dog
    arrive=arriver: person
    leave/left/left=partir: person
    go/went/gone out=sortir: person animal
    go/went/gone upstairs=monter: person
    go/went/gone downstairs=descendre: person
    come/came/come in=entrer: person animal
    fall/fell/fallen=tomber: person animal
    come/came/come back=revenir: person animal
    go/went/gone home=rentrer: person
    get/got/got up=se lever: person
    go/went/gone to bed=se coucher: person
    wake/woke/woken up=se réveiller: person animal
    get/got/got dressed=se habiller: person
    rest=se reposer: person animal
    stop=se arrêter: person animal
    hide/hid/hidden=se cacher: person animal
    hurry=se dépêcher: person
    get/got/got lost=se perdre: person animal
    go/went/gone for a walk=se promener: person
    have/had/had fun=se amuser: person
"""
# As above; the objects given, and a receiver of them.
GIFT_TABLE = """
    give/gave/given=donner; show/showed/shown=montrer; send/sent/sent=envoyer; lend/lent/lent=prêter; offer=offrir;
    bring/brought/brought=apporter; sell/sold/sold=vendre
"""
NUMBER_TABLE = """
    two=deux three=trois four=quatre five=cinq six=six seven=sept eight=huit nine=neuf ten=dix eleven=onze twelve=douze
    thirteen=treize fourteen=quatorze fifteen=quinze sixteen=seize seventeen=dix-sept eighteen=dix-huit
    nineteen=dix-neuf twenty=vingt
"""
