/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * words.pml - the shared words of one ring (ring/layout.h), the store buffers in front of them, and
 * the truth that only the checker knows.
 *
 * Memory is x86-TSO: a store goes into the FIFO buffer of the process that makes it and reaches
 * memory at any later moment; a load reads memory. No process loads a word that it writes itself
 * (each keeps private copies), so forwarding from the own buffer never happens. A store that is put
 * into the buffer is seen by nobody, so it is part of the step before it; each load, and each
 * arrival in memory, is a step of its own.
 */

/* Bounds and sizes; each configuration in test_model.sh sets its own. */
#ifndef BYTES
#define BYTES 3       /* bytes sent; byte p has the value p */
#endif
#ifndef GENERATIONS
#define GENERATIONS 3 /* the broker publishes up to this one */
#endif
#ifndef FIRST
#define FIRST 1       /* generation at the start; 2: moved while idle, the ends still hold 1 */
#endif
#ifndef CAP1
#define CAP1 2        /* bytes in the extent of generation 1, 2, ... */
#endif
#ifndef CAP2
#define CAP2 1
#endif
#ifndef CAP3
#define CAP3 2
#endif
#ifndef CAP4
#define CAP4 1
#endif
#define CAP_MAX 3
#define CAP(g) ((g) == 1 -> CAP1 : ((g) == 2 -> CAP2 : ((g) == 3 -> CAP3 : CAP4)))
#ifndef BUFFER
#define BUFFER 4      /* stores that wait in an end's buffer; an operation: 4, without JOINED 6 */
#endif
#ifndef NEED
#define NEED 1        /* bytes that the consumer waits for before it starts to read */
#endif
#ifndef KILLS
#define KILLS 0       /* ends that may be killed, at any step */
#endif

/* What an entry in a store buffer is for: {word, a, b}. */
#define W_NONE 0
#define W_DATA 1          /* a: generation, b: position: one byte into the extent */
#define W_TAIL 2          /* a: tail; JOINED: with the byte before it, b: generation */
#define W_SWITCH_EVEN 3   /* switches[0]: a: generation, b: position */
#define W_SWITCH_ODD 4    /* switches[1] */
#define W_SWITCH_COUNT 5  /* JOINED: with the record before it, b: 16 * generation + position */
#define W_PRODUCER_MARK 6
#define W_PROMISED 7
#define W_PRODUCER_WANTED 8
#define W_PRODUCER_ARMED 9
#define W_PRODUCER_CLOSED 10
#define W_HEAD 11
#define W_FOLLOWED 12
#define W_CONSUMER_MARK 13
#define W_CONSUMER_WANTED 14
#define W_CONSUMER_ARMED 15
#define W_CONSUMER_CLOSED 16
#define W_EXTENT 17       /* extent[a & 1] = generation a's */
#define W_GENERATION 18

chan buffer_p = [BUFFER] of { byte, byte, byte };
chan buffer_c = [BUFFER] of { byte, byte, byte };
chan buffer_b = [3] of { byte, byte, byte };
#define DRAINED(buffer) (len(buffer) == 0)

/* layout_geometry */
byte generation = FIRST;
byte extent[2]; /* .generation; its size is CAP(generation) */
/* layout_producer, layout_producer_status, layout_sleep */
byte tail, switch_count;
byte switch_generation[2], switch_position[2];
byte p_mark, promised, p_armed, p_wanted;
bool p_closed;
/* layout_consumer, layout_consumer_status, layout_sleep */
byte head, followed;
byte c_mark, c_armed, c_wanted;
bool c_closed;
/* layout_channel.gone */
bool p_gone, c_gone;
/* Doorbells: an eventfd that is readable or not. */
bool p_bell, c_bell;

/* The truth: who owns the two extents (0: somebody else), what lies in them, who has died. */
#define FOREIGN 255
byte owner[2];
byte cell[2 * CAP_MAX];
byte kills = KILLS;
bool p_dead, c_dead;

#define CELL(g, position) cell[((g) & 1) * CAP_MAX + (position) % CAP(g)]

inline take_extent(g)
{
    assert(owner[(g) & 1] == 0); /* rule 2: at most two */
    owner[(g) & 1] = g;
}

inline free_extent(g)
{
    d_step {
        assert(owner[(g) & 1] == g);
        owner[(g) & 1] = 0;
        cell[((g) & 1) * CAP_MAX] = FOREIGN;
        cell[((g) & 1) * CAP_MAX + 1] = FOREIGN;
        cell[((g) & 1) * CAP_MAX + 2] = FOREIGN;
    }
}

/* One store arrives in memory. */
inline arrive(word, a, b)
{
    if
    :: word == W_DATA ->
        assert(owner[a & 1] == a); /* rule 2: no write into memory that is somebody else's */
        CELL(a, b) = b;
    :: word == W_TAIL ->
#ifdef JOINED
        assert(owner[b & 1] == b);
        CELL(b, tail) = tail;
#endif
        tail = a;
    :: word == W_SWITCH_EVEN -> switch_generation[0] = a; switch_position[0] = b;
    :: word == W_SWITCH_ODD -> switch_generation[1] = a; switch_position[1] = b;
    :: word == W_SWITCH_COUNT ->
#ifdef JOINED
        switch_generation[a & 1] = b >> 4; switch_position[a & 1] = b & 15;
#endif
        switch_count = a;
    :: word == W_PRODUCER_MARK -> p_mark = a;
    :: word == W_PROMISED -> promised = a;
    :: word == W_PRODUCER_ARMED -> p_armed = a;
    :: word == W_PRODUCER_WANTED -> p_wanted = a;
    :: word == W_PRODUCER_CLOSED -> p_closed = 1;
    :: word == W_HEAD -> head = a;
    :: word == W_FOLLOWED -> followed = a;
    :: word == W_CONSUMER_MARK -> c_mark = a;
    :: word == W_CONSUMER_ARMED -> c_armed = a;
    :: word == W_CONSUMER_WANTED -> c_wanted = a;
    :: word == W_CONSUMER_CLOSED -> c_closed = 1;
    :: word == W_EXTENT -> extent[a & 1] = a;
    :: word == W_GENERATION -> generation = a;
    fi
}

proctype memory(chan buffer)
{
    byte word, a, b;
end:
    do
    :: d_step {
        buffer ? word, a, b;
        arrive(word, a, b);
        word = W_NONE; a = 0; b = 0;
    }
    od
}
