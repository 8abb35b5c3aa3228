//! The words of the messages, by language.
//!
//! `{ap}` is the application provider's name, `{dp}` the discovery provider's, `{code}` the code.
//! Text messages have only characters of the GSM 7 bit default alphabet, and in languages that need
//! others the words are chosen, or spelled, as people there write text messages. They have at most
//! 110 septets without the names and the last line. Calls and emails have room for more.

/// The words of one language.
pub(crate) struct Words {
    /// Its subtag (BCP 47).
    pub(crate) tag: &'static str,
    /// The text message to be found, and the one to prefer a service.
    pub(crate) sms: [&'static str; 2],
    /// The subject of an email.
    pub(crate) subject: &'static str,
    /// The sentence with the code, in calls and emails.
    pub(crate) code: &'static str,
    /// What the code does: be found, prefer a service.
    pub(crate) why: [&'static str; 2],
    /// Whom not to tell it.
    pub(crate) warning: &'static str,
}

/// All languages; the first is for those that are not here.
pub(crate) const LANGUAGES: [Words; 9] = [
    Words {
        tag: "en",
        sms: [
            "{code}: {dp} code to be found on {ap}. Enter it only there. \
             Give it to no person and no other app.",
            "{code}: {dp} code to prefer {ap}. Enter it only there. \
             Give it to no person and no other app.",
        ],
        subject: "Your code from {dp} for {ap}",
        code: "Your code from {dp} is: {code}.",
        why: [
            "With it you let people find you on {ap}.",
            "With it you make {ap} the service where people reach you first.",
        ],
        warning: "Enter it only in {ap}. Tell it to nobody and to no other app, not even to \
                  somebody who says that they are {ap} or {dp}. If you did not ask for it, \
                  somebody else did: do nothing.",
    },
    Words {
        tag: "de",
        sms: [
            "{code}: Code von {dp}, um bei {ap} gefunden zu werden. Nur dort eingeben. \
             Niemandem und keiner anderen App geben.",
            "{code}: Code von {dp}, um {ap} zu bevorzugen. Nur dort eingeben. \
             Niemandem und keiner anderen App geben.",
        ],
        subject: "Ihr Code von {dp} für {ap}",
        code: "Ihr Code von {dp} lautet: {code}.",
        why: [
            "Mit ihm kann man Sie bei {ap} finden.",
            "Mit ihm wird {ap} der Dienst, bei dem man Sie zuerst erreicht.",
        ],
        warning: "Geben Sie ihn nur in {ap} ein. Nennen Sie ihn niemandem und keiner anderen App, \
                  auch niemandem, der sich als {ap} oder {dp} ausgibt. Wenn Sie ihn nicht \
                  angefordert haben, war es jemand anderes: Tun Sie nichts.",
    },
    Words {
        tag: "fr",
        sms: [
            "{code}: code {dp} pour qu'on vous trouve sur {ap}. Tapez-le seulement là. \
             Ni personne ni autre appli ne doit l'avoir.",
            "{code}: code {dp} pour utiliser {ap} d'abord. Tapez-le seulement là. \
             Ni personne ni autre appli ne doit l'avoir.",
        ],
        subject: "Votre code de {dp} pour {ap}",
        code: "Votre code de {dp} est : {code}.",
        why: [
            "Il permet que l'on vous trouve sur {ap}.",
            "Il fait de {ap} le service où l'on vous joint d'abord.",
        ],
        warning: "Ne le saisissez que dans {ap}. Ne le donnez à personne ni à une autre \
                  application, même à quelqu'un qui dit être {ap} ou {dp}. Si vous ne l'avez pas \
                  demandé, quelqu'un d'autre l'a fait : ne faites rien.",
    },
    Words {
        tag: "es",
        sms: [
            "{code}: clave de {dp} para que te encuentren en {ap}. Usar solo en esa app. \
             No dar a nadie ni a otra app.",
            "{code}: clave de {dp} para preferir {ap}. Usar solo en esa app. \
             No dar a nadie ni a otra app.",
        ],
        subject: "Tu código de {dp} para {ap}",
        code: "Tu código de {dp} es: {code}.",
        why: [
            "Con él permites que te encuentren en {ap}.",
            "Con él, {ap} será el servicio donde se te contacta primero.",
        ],
        warning: "Escríbelo solo en {ap}. No se lo digas a nadie ni a otra aplicación, ni siquiera \
                  a quien diga ser {ap} o {dp}. Si no lo has pedido, lo pidió otra persona: no \
                  hagas nada.",
    },
    Words {
        tag: "it",
        sms: [
            "{code}: codice di {dp} per farti trovare su {ap}. Inseriscilo solo lì. \
             Non darlo a nessuno né ad altre app.",
            "{code}: codice di {dp} per preferire {ap}. Inseriscilo solo lì. \
             Non darlo a nessuno né ad altre app.",
        ],
        subject: "Il tuo codice di {dp} per {ap}",
        code: "Il tuo codice di {dp} è: {code}.",
        why: [
            "Serve a farti trovare su {ap}.",
            "Serve a fare di {ap} il servizio dove ti si raggiunge per primo.",
        ],
        warning: "Inseriscilo solo in {ap}. Non dirlo a nessuno né ad altre app, nemmeno a chi \
                  dice di essere {ap} o {dp}. Se non l'hai chiesto tu, l'ha chiesto qualcun \
                  altro: non fare nulla.",
    },
    Words {
        tag: "nl",
        sms: [
            "{code}: code van {dp} om vindbaar te zijn op {ap}. Vul hem alleen daar in. \
             Geef hem aan niemand en geen andere app.",
            "{code}: code van {dp} voor voorkeur aan {ap}. Vul hem alleen daar in. \
             Geef hem aan niemand en geen andere app.",
        ],
        subject: "Je code van {dp} voor {ap}",
        code: "Je code van {dp} is: {code}.",
        why: [
            "Hiermee kunnen mensen je vinden op {ap}.",
            "Hiermee wordt {ap} de dienst waar mensen je het eerst bereiken.",
        ],
        warning: "Vul hem alleen in {ap} in. Geef hem aan niemand en aan geen andere app, ook niet \
                  aan iemand die zegt van {ap} of {dp} te zijn. Heb je er niet om gevraagd, dan \
                  deed iemand anders dat: doe niets.",
    },
    Words {
        tag: "pl",
        sms: [
            "{code}: kod {dp}, aby znaleziono Cie w {ap}. Wpisz go tylko tam. \
             Nie podawaj go nikomu ani innej aplikacji.",
            "{code}: kod {dp}, aby preferowac {ap}. Wpisz go tylko tam. \
             Nie podawaj go nikomu ani innej aplikacji.",
        ],
        subject: "Kod od {dp} do {ap}",
        code: "Twój kod od {dp} to: {code}.",
        why: [
            "Dzięki niemu inni znajdą Cię w {ap}.",
            "Dzięki niemu {ap} będzie usługą, przez którą inni skontaktują się najpierw.",
        ],
        warning: "Wpisz go tylko w {ap}. Nie podawaj go nikomu ani żadnej innej aplikacji, nawet \
                  komuś, kto podaje się za {ap} lub {dp}. Jeśli o niego nie prosisz, zrobił to \
                  ktoś inny: nie rób nic.",
    },
    Words {
        tag: "pt",
        sms: [
            "{code}: chave de {dp} para que te encontrem em {ap}. Use somente nesse app. \
             Nunca passe a ninguém nem a outro app.",
            "{code}: chave de {dp} para preferir {ap}. Use somente nesse app. \
             Nunca passe a ninguém nem a outro app.",
        ],
        subject: "O seu código de {dp} para {ap}",
        code: "O seu código de {dp} é: {code}.",
        why: [
            "Com ele, as pessoas podem encontrar você em {ap}.",
            "Com ele, {ap} será o serviço onde as pessoas contactam você primeiro.",
        ],
        warning: "Digite-o somente em {ap}. Não o passe a ninguém nem a outro aplicativo, nem \
                  mesmo a quem diz ser {ap} ou {dp}. Se você não o pediu, outra pessoa pediu: não \
                  faça nada.",
    },
    Words {
        tag: "tr",
        sms: [
            "{code}: {ap} üzerinde bulunmaniz icin {dp} kodu. Yalniz orada girin. \
             Kimseye ve baska uygulamaya vermeyin.",
            "{code}: {ap} tercihiniz icin {dp} kodu. Yalniz orada girin. \
             Kimseye ve baska uygulamaya vermeyin.",
        ],
        subject: "{ap} için {dp} kodunuz",
        code: "{dp} kodunuz: {code}.",
        why: [
            "Bu kodla insanlar sizi {ap} üzerinde bulabilir.",
            "Bu kodla {ap}, size önce ulaşılan hizmet olur.",
        ],
        warning: "Yalnızca {ap} içinde girin. {ap} veya {dp} olduğunu söyleyenler dahil kimseye ve \
                  başka bir uygulamaya vermeyin. Siz istemediyseniz başkası istemiştir: hiçbir şey \
                  yapmayın.",
    },
];
