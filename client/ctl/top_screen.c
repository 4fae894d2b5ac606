/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl top on a terminal. The only file that knows ncurses. */
#define NCURSES_WIDECHAR 1

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "client/ctl/names.h"
#include "client/ctl/top.h"
#include "client/ctl/top_feed.h"
#include "client/ctl/top_text.h"

#define LINE_WIDTH_MAX 1024
#define DECISION_LINES_MAX 10
#define INPUT_BYTES 64

enum pair { PAIR_TITLE = 1, PAIR_HELD, PAIR_SIZE, PAIR_ALARM, PAIR_QUIET };

struct screen {
    const struct top_options *options;
    bool colour;
    struct top_feed *feed;
    struct top_sample *sample; /* shown; NULL: none yet */
    const struct top_row **picked;
    enum top_key key;
    bool reverse, paused, help, failed;
    uint32_t domain;
    size_t first; /* of the rows that are shown */
    size_t page;  /* rows that fit */
    bool asking;  /* for a domain */
    char input[INPUT_BYTES];
    char complaint[128]; /* about the input; shown until the next key */
};

/* A signal asks for the end: the terminal must be given back first. */
static volatile sig_atomic_t ended;

static void on_end(int number)
{
    ended = number;
}

/* The next character of a clean UTF-8 text. */
static wchar_t next_character(const char **text)
{
    const unsigned char *t = (const unsigned char *)*text;
    const unsigned more = t[0] < 0xc0 ? 0 : t[0] < 0xe0 ? 1 : t[0] < 0xf0 ? 2 : 3;
    wchar_t c = (wchar_t)(more == 0 ? t[0] : t[0] & (0x3fu >> more));

    (*text)++;
    for (unsigned i = 1; i <= more && (t[i] & 0xc0u) == 0x80u; i++, (*text)++)
        c = (wchar_t)((unsigned)c << 6 | (t[i] & 0x3fu));
    return c;
}

/* Can this locale show it? Others and those without a width become '?'. */
static wchar_t showable(wchar_t c)
{
    char bytes[MB_LEN_MAX];
    mbstate_t state = {0};

    return c < 0x80 || (wcrtomb(bytes, c, &state) != (size_t)-1 && wcwidth(c) > 0) ? c : L'?';
}

/* From column x of line y to the right edge, and blanks behind. */
static void put(int y, int x, const char *text)
{
    wchar_t line[LINE_WIDTH_MAX + 1];
    int count = 0, columns = 0, room = COLS - x;

    if (y < 0 || y >= LINES || room <= 0)
        return;
    while (*text && count < LINE_WIDTH_MAX) {
        const wchar_t c = showable(next_character(&text));
        const int width = c < 0x80 ? 1 : wcwidth(c);
        if (columns + width > room)
            break;
        line[count++] = c;
        columns += width;
    }
    mvaddnwstr(y, x, line, count);
    if (columns < room)
        clrtoeol();
}

static void put_with(int y, const char *text, attr_t attributes)
{
    attron(attributes);
    put(y, 0, text);
    attroff(attributes);
}

static attr_t colour_of(const struct screen *screen, enum pair pair)
{
    return screen->colour ? (attr_t)COLOR_PAIR(pair) : A_NORMAL;
}

/* A line of the full width in reverse. */
static void put_title(int y, const char *text)
{
    put_with(y, text, A_REVERSE);
    if (y >= 0 && y < LINES)
        mvchgat(y, 0, -1, A_REVERSE, 0, NULL);
}

/* The bar, the end of the text, gets its colours after the text is there. */
static void colour_bar(int y, unsigned start, const char *text, bool stalled)
{
    const char *bar = text + strlen(text);

    while (bar > text && (bar[-1] == '#' || bar[-1] == '='))
        bar--;
    const int held = (int)strspn(bar, "#"), rest = (int)strspn(bar + held, "=");
    if (held > 0)
        mvchgat(y, (int)start, held, A_BOLD, stalled ? PAIR_ALARM : PAIR_HELD, NULL);
    if (rest > 0)
        mvchgat(y, (int)start + held, rest, A_NORMAL, PAIR_SIZE, NULL);
}

static void draw_rows(const struct screen *screen, const struct top_view *view, int y)
{
    const struct top_layout layout = top_layout((unsigned)COLS);
    const struct top_sample *sample = view->sample;
    const uint64_t bar_bytes = top_bar_bytes(sample->sums.largest_bytes);
    char text[TOP_LINE_BYTES];

    top_text_titles(&layout, bar_bytes, text);
    put_title(y++, text);
    for (size_t i = 0; i < screen->page; i++, y++) {
        if (i >= view->shown) {
            put(y, 0, "");
            continue;
        }
        const struct top_row *row = view->picked[view->first + i];
        const bool stalled = row->ring->flags & PROTO_RING_STALLED;
        top_text_row(&layout, row, &sample->names, sample->info.data_bytes, bar_bytes, text);
        put_with(y, text, stalled ? colour_of(screen, PAIR_ALARM) : A_NORMAL);
        if (screen->colour && layout.bar_width > 0)
            colour_bar(y, layout.bar_start, text, stalled);
    }
}

static void draw_decisions(const struct screen *screen, int y, int lines)
{
    const struct top_sample *sample = screen->sample;
    const struct proto_decision *decisions = sample->decisions.items;
    const size_t count = sample->decisions.count;
    const size_t skip = count > (size_t)lines ? count - (size_t)lines : 0;
    char text[TOP_LINE_BYTES];

    top_text_moves_title(sample, text);
    put_title(y++, text);
    for (int i = 0; i < lines; i++, y++) {
        const size_t index = skip + (size_t)i;
        if (index >= count) {
            put(y, 0, "");
            continue;
        }
        top_text_decision(&decisions[index], &sample->names, text);
        put_with(y, text,
                 decisions[index].outcome == PROTO_OUTCOME_REFUSED ? colour_of(screen, PAIR_QUIET)
                                                                   : A_NORMAL);
    }
}

static void draw_help(int y)
{
    static const char *const lines[] = {
        "t s z b     sort by traffic, stalls, size, bytes held",
        "r           the other way round",
        "d           only one domain's rings; nothing entered: all",
        "p, space    pause",
        "up, down, page up, page down, home, end",
        "?, h        these keys, and back",
        "q           quit",
        "",
        "bar: # bytes that wait to be read, = the rest of the ring's memory",
        "*: an old extent is not free yet   !: because an end keeps it",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        put(y + (int)i, 0, lines[i]);
    for (int i = y + (int)(sizeof(lines) / sizeof(lines[0])); i < LINES; i++)
        put(i, 0, "");
}

/* What is asked and answered at the bottom, above all else. */
static void draw_prompt(const struct screen *screen)
{
    char text[sizeof(screen->complaint) + INPUT_BYTES];

    if (screen->asking)
        snprintf(text, sizeof(text), "domain (nothing: all): %s_", screen->input);
    else
        snprintf(text, sizeof(text), "%s", screen->complaint);
    if (text[0])
        put_title(LINES - 1, text);
}

/* Which rows: scrolled no further than there are. */
static void place_rows(struct screen *screen, struct top_view *view)
{
    const size_t count = view->picked_count;

    if (screen->first + screen->page > count)
        screen->first = count > screen->page ? count - screen->page : 0;
    view->first = screen->first;
    view->shown = count - view->first < screen->page ? count - view->first : screen->page;
}

/* From the top: header, a title and the rings, a title and the decisions where there is height. */
static void draw(struct screen *screen)
{
    struct top_view view = {
        .sample = screen->sample,
        .socket_path = screen->options->socket_path,
        .key = screen->key,
        .reverse = screen->reverse,
        .domain = screen->domain,
        .paused = screen->paused,
        .interval_ms = screen->options->interval_ms,
        .picked = screen->picked,
    };
    const int header = LINES >= 10 ? (int)TOP_HEADER_LINES : LINES >= 5 ? 2 : 1;
    int decisions = (LINES - header) / 3 - 1;
    char text[TOP_LINE_BYTES];

    if (decisions > DECISION_LINES_MAX)
        decisions = DECISION_LINES_MAX;
    const int below = decisions > 0 ? decisions + 1 : 0;
    screen->page = LINES - header - below > 1 ? (size_t)(LINES - header - below - 1) : 0;
    erase();
    if (view.sample) {
        if (!view.sample->error)
            view.picked_count = top_rows_pick(view.sample->rows, view.sample->rings.count,
                                              view.domain, view.key, view.reverse, view.picked);
        place_rows(screen, &view);
        for (int i = 0; i < header; i++) {
            top_text_header(&view, (unsigned)i, text);
            put_with(i, text,
                     view.sample->error && i < 2 ? colour_of(screen, PAIR_ALARM) | A_BOLD
                     : i == 0                    ? A_BOLD
                                                 : A_NORMAL);
        }
        if (!view.sample->error && !screen->help) {
            draw_rows(screen, &view, header);
            if (below > 0)
                draw_decisions(screen, LINES - below, decisions);
        }
    }
    if (screen->help)
        draw_help(header);
    draw_prompt(screen);
    refresh();
}

static void take_sample(struct screen *screen)
{
    struct top_sample *sample = top_feed_take(screen->feed, &screen->failed);

    /* While it pauses, that the broker has gone is still told when it goes on. */
    if (!sample || (screen->paused && screen->sample)) {
        top_sample_free(sample);
        return;
    }
    const struct top_row **picked = calloc(sample->rings.count + 1, sizeof(*picked));
    if (!picked) {
        screen->failed = true;
        top_sample_free(sample);
        return;
    }
    top_sample_free(screen->sample);
    free(screen->picked);
    screen->sample = sample;
    screen->picked = picked;
}

static void end_input(struct screen *screen)
{
    uint32_t domain = PROTO_ANY;

    screen->asking = false;
    if (screen->input[0] &&
        (!screen->sample || names_find(&screen->sample->names, screen->input, &domain) < 0))
        snprintf(screen->complaint, sizeof(screen->complaint), "%s: no such domain", screen->input);
    else
        screen->domain = domain;
    screen->first = 0;
}

static void on_input(struct screen *screen, int key)
{
    const size_t length = strlen(screen->input);

    if (key == 27)
        screen->asking = false;
    else if (key == '\n' || key == '\r' || key == KEY_ENTER)
        end_input(screen);
    else if ((key == KEY_BACKSPACE || key == 127 || key == 8) && length > 0)
        screen->input[length - 1] = '\0';
    else if (key > ' ' && key < 127 && length + 1 < sizeof(screen->input)) {
        screen->input[length] = (char)key;
        screen->input[length + 1] = '\0';
    }
}

static void sort_by(struct screen *screen, enum top_key key)
{
    screen->key = key;
    screen->first = 0;
}

static void scroll_by(struct screen *screen, int key)
{
    const size_t page = screen->page > 0 ? screen->page : 1;

    switch (key) {
    case KEY_DOWN:
        screen->first++;
        break;
    case KEY_UP:
        screen->first -= screen->first > 0 ? 1 : 0;
        break;
    case KEY_NPAGE:
        screen->first += page;
        break;
    case KEY_PPAGE:
        screen->first -= screen->first > page ? page : screen->first;
        break;
    case KEY_HOME:
        screen->first = 0;
        break;
    case KEY_END:
        screen->first = screen->sample ? screen->sample->rings.count : 0;
        break;
    default:
        break;
    }
}

/* True: it was q. */
static bool on_key(struct screen *screen, int key)
{
    screen->complaint[0] = '\0';
    if (screen->asking) {
        on_input(screen, key);
        return false;
    }
    switch (key) {
    case 'q':
        return true;
    case 't':
        sort_by(screen, TOP_TRAFFIC);
        break;
    case 's':
        sort_by(screen, TOP_STALLS);
        break;
    case 'z':
        sort_by(screen, TOP_SIZE);
        break;
    case 'b':
        sort_by(screen, TOP_HELD);
        break;
    case 'r':
        screen->reverse = !screen->reverse;
        break;
    case 'd':
        screen->asking = true;
        screen->input[0] = '\0';
        break;
    case 'p':
    case ' ':
        screen->paused = !screen->paused;
        break;
    case '?':
    case 'h':
        screen->help = !screen->help;
        break;
    default:
        scroll_by(screen, key);
    }
    return false;
}

/* Until q, a signal, the terminal's end, the last sample, or want of memory. */
static void run(struct screen *screen)
{
    struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = top_feed_descriptor(screen->feed), .events = POLLIN}};
    uint64_t samples = 0;
    bool quit = false;

    while (!quit && !ended && !screen->failed) {
        draw(screen);
        waits[0].revents = waits[1].revents = 0;
        if (poll(waits, 2, -1) < 0 && errno != EINTR)
            return;
        int key;
        while (!quit && (key = getch()) != ERR)
            quit = on_key(screen, key); /* KEY_RESIZE: drawn anew anyway */
        if (waits[0].revents & (POLLHUP | POLLERR | POLLNVAL))
            return;
        if (waits[1].revents & POLLIN) {
            take_sample(screen);
            if (screen->options->count > 0 && ++samples >= screen->options->count) {
                draw(screen);
                return;
            }
        }
    }
}

static void set_up_terminal(struct screen *screen, bool colour)
{
    struct sigaction action = {.sa_handler = on_end};

    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(50);
    curs_set(0);
    screen->colour = colour && has_colors();
    if (screen->colour) {
        start_color();
        use_default_colors();
        init_pair(PAIR_HELD, COLOR_GREEN, -1);
        init_pair(PAIR_SIZE, COLOR_BLUE, -1);
        init_pair(PAIR_ALARM, COLOR_RED, -1);
        init_pair(PAIR_QUIET, COLOR_YELLOW, -1);
    }
    /* After ncurses has put its own there, which would leave without freeing anything. */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

int top_screen(struct ctl *ctl, const struct top_options *options)
{
    struct screen screen = {.options = options, .key = options->key, .domain = options->domain};

    setlocale(LC_CTYPE, "");
    SCREEN *terminal = newterm(NULL, stdout, stdin);
    if (!terminal)
        return -ENOTSUP; /* TERM names none that it knows */
    set_up_terminal(&screen, ctl->colour);
    int r = top_feed_new(ctl, options->interval_ms, &screen.feed);
    if (r == 0)
        run(&screen);
    endwin();
    delscreen(terminal);
    if (r == 0)
        top_feed_free(screen.feed);
    top_sample_free(screen.sample);
    free(screen.picked);
    if (screen.failed)
        r = -ENOMEM;
    return r < 0 ? ctl_fail(ctl, r, "cannot show the rings") : CTL_OK;
}
