/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * producer.pml - ring_producer_reserve and _commit, _promise, _arm and _disarm, _close
 * (ring/producer.c).
 *
 * An atomic block is one load and what follows from it in private memory and in the own store
 * buffer.
 */

#if KILLS
/* The end may stop for ever here. What it has stored still arrives. */
#define P_DIES if :: kills > 0 -> kills--; p_dead = 1; goto p_end :: true fi
#define P_OR_DIES :: atomic { kills > 0 -> kills--; p_dead = 1; goto p_end }
#else
#define P_DIES skip
#define P_OR_DIES
#endif
#define P_STORE(word, a, b) P_DIES; buffer_p ! word, a, b
#define P_SPACE (CAP(own) - (p_tail - (p_head > base -> p_head : base)))
#define P_OUTSTANDING (p_promised > p_tail -> p_promised - p_tail : 0)

#ifdef MARKS
#define P_MARK p_marked = (p_marked + 1) % 4; P_STORE(W_PRODUCER_MARK, p_marked, 0)
#else
#define P_MARK skip
#endif

#ifdef MUT_NO_RING_AFTER_SWITCH
#define SWITCH_RINGS false
#else
#define SWITCH_RINGS moved /* the consumer must follow, however few bytes came with it */
#endif

#ifdef JOINED
#define P_PUBLISH(g) P_STORE(W_TAIL, p_tail + 1, g)
#define P_RECORD P_STORE(W_SWITCH_COUNT, p_switches, own * 16 + base)
#else
#ifdef MUT_TAIL_BEFORE_BYTES
#define P_PUBLISH(g) P_STORE(W_TAIL, p_tail + 1, 0); P_STORE(W_DATA, g, p_tail)
#else
#define P_PUBLISH(g) P_STORE(W_DATA, g, p_tail); P_STORE(W_TAIL, p_tail + 1, 0)
#endif
#define P_RECORD P_STORE(W_SWITCH_EVEN + (p_switches & 1), own, base); \
    P_STORE(W_SWITCH_COUNT, p_switches, 0)
#endif

proctype producer()
{
    byte own = 1, base, p_tail, p_head, p_switches, p_marked; /* private copies */
    byte latest, into, space, wanted, number, armed, rung;
    bool lags, fits, ended, moved;
#ifdef PROMISE
    byte p_promised, asks = PROMISE;
    bool asking;
#endif
#ifdef ABANDON
    byte abandons = ABANDON;
#endif

p_next:
    atomic {
        if
        :: p_tail == BYTES -> goto p_finished
#ifdef CLOSE
        :: p_tail < BYTES -> goto p_close
#endif
#ifdef PROMISE
        :: p_tail < BYTES && asks > 0 -> asks--; asking = 1
#endif
        :: p_tail < BYTES
        fi;
#ifndef MUT_MARK_AFTER_GENERATION
        P_MARK
#endif
    }
#ifndef MUT_MARK_AFTER_GENERATION
#if defined(FENCE_MARK) && !defined(MUT_MARK_WITHOUT_FENCE)
    atomic { DRAINED(buffer_p) }
#endif
#endif
#if defined(CLOSE) || KILLS
    atomic {
        P_DIES;
        ended = c_closed || c_gone;
        if
        :: ended -> P_MARK; goto p_close
        :: else
        fi
    }
#endif
    atomic {
        P_DIES;
        latest = generation;
#ifdef MUT_MARK_AFTER_GENERATION
        P_MARK;
#endif
        into = own; fits = 1;
        if
        :: latest == own -> space = P_SPACE; goto p_spaced
        :: else
        fi
    }
    atomic { /* may it switch? */
        P_DIES;
        lags = (followed != p_switches)
#ifdef MUT_SWITCH_WITHOUT_FOLLOWED
        ; lags = 0
#endif
    }
    atomic {
        P_DIES;
        assert(extent[latest & 1] == latest); /* a descriptor stays as long as its extent */
#if defined(PROMISE) && !defined(MUT_PRODUCER_IGNORES_PROMISE)
        fits = (P_OUTSTANDING <= CAP(latest));
#endif
        if
        :: lags ->
            assert(own + 1 >= latest); /* what the consumer has not followed into is not free */
            space = P_SPACE; goto p_spaced
        :: !lags && fits -> into = latest; space = CAP(latest); goto p_placed
        :: !lags && !fits &&
#ifdef MUT_DECLINE_STAYS
            true
#else
            own + 1 == latest
#endif
            -> space = P_SPACE; goto p_spaced
        :: else
        fi
    }
    /* Own was freed before `latest` came; the one between was found to hold what was promised. */
    atomic {
        P_DIES;
        into = latest - 1;
        assert(extent[into & 1] == into);
        space = CAP(into);
        goto p_placed
    }

p_spaced: /* in the extent in use; is there enough as far as is known? */
    atomic {
        if
        :: space > 0 -> goto p_placed
        :: else
        fi
    }
    atomic { P_DIES; p_head = head; space = P_SPACE; goto p_placed }

p_placed:
    atomic {
#ifdef PROMISE
        if
        :: asking ->
            if
            :: p_tail + space > p_promised ->
                p_promised = p_tail + space; P_STORE(W_PROMISED, p_promised, 0)
            :: else
            fi;
            asking = 0;
            P_MARK; goto p_done
        :: else
        fi;
#endif
        if
        :: space == 0 ->
#ifdef PROMISE
            assert(P_OUTSTANDING == 0); /* rule 3 */
#endif
            P_MARK; goto p_full
#ifdef ABANDON
        :: space > 0 && abandons > 0 -> /* reserve, scribble, commit nothing */
            abandons--;
            P_STORE(W_DATA, into, p_tail);
            P_MARK; goto p_done
#endif
        :: space > 0
        fi;
        moved = (into != own);
#ifdef MUT_MARK_CLEARED_EARLY
        P_MARK;
#endif
#ifdef MUT_TAIL_BEFORE_SWITCH
        P_PUBLISH(into);
#endif
        if
        :: moved -> p_switches++; own = into; base = p_tail; P_RECORD
        :: else
        fi;
#ifndef MUT_TAIL_BEFORE_SWITCH
        P_PUBLISH(own);
#endif
        p_tail++;
#ifndef MUT_MARK_CLEARED_EARLY
        P_MARK;
#endif
#ifndef SLEEP
        goto p_done
#endif
    }

#ifdef SLEEP
p_look: /* whether the consumer sleeps */
#if defined(FENCE_SLEEP) && !defined(MUT_LOOK_WITHOUT_FENCE)
    atomic { DRAINED(buffer_p) }
#endif
    atomic {
        P_DIES;
        armed = c_armed;
        if
        :: armed == 0 || armed == rung -> goto p_looked
        :: else
        fi
    }
    atomic {
        P_DIES;
        wanted = c_wanted;
        if
        :: p_tail >= wanted || ended || SWITCH_RINGS
        :: else -> goto p_looked
        fi
    }
    atomic { P_DIES; DRAINED(buffer_p); c_bell = 1; rung = armed; } /* a system call: drains */
p_looked:
    atomic {
        if
        :: ended -> goto p_end
        :: else -> goto p_done
        fi
    }
#endif

p_full:
#ifdef SLEEP
    atomic {
#ifdef MUT_SAME_NUMBER_TWICE
        number = 1;
#else
        number++;
#endif
        P_STORE(W_PRODUCER_WANTED, p_tail + 1 - CAP(own), 0);
        P_STORE(W_PRODUCER_ARMED, number, 0);
    }
#ifndef MUT_NO_BARRIER_AFTER_ARM
    atomic { DRAINED(buffer_p) }
#if defined(ASYM_SLEEP) && !defined(MUT_OWN_FENCE_ONLY)
    atomic { DRAINED(buffer_c) }
#endif
#endif
#ifndef MUT_NO_RECHECK_AFTER_ARM
#if defined(CLOSE) || KILLS
    atomic {
        P_DIES;
        if
        :: c_closed || c_gone -> goto p_awake
        :: else
        fi
    }
#endif
    atomic {
        P_DIES;
        latest = generation;
        if
        :: latest == own -> goto p_recheck_head
        :: else
        fi
    }
    atomic {
        P_DIES;
        if
        :: followed == p_switches -> goto p_awake
        :: else
        fi
    }
p_recheck_head:
    atomic {
        P_DIES;
        if
        :: head != p_head -> goto p_awake
        :: else
        fi
    }
#endif
    atomic {
        if
        :: p_bell -> p_bell = 0
        P_OR_DIES
        fi
    }
p_awake:
    atomic { P_STORE(W_PRODUCER_ARMED, 0, 0); goto p_done }
#else
    atomic {
        if
        :: head != p_head || (generation != own && followed == p_switches) || c_closed || c_gone
        P_OR_DIES
        fi;
        goto p_done
    }
#endif
p_done:
    atomic {
        latest = 0; into = 0; space = 0; wanted = 0; armed = 0;
        lags = 0; fits = 0; ended = 0; moved = 0;
        goto p_next
    }

p_finished:
#if !defined(CLOSE) && !KILLS
    goto p_end;
#endif
p_close: /* no operation follows */
    atomic { ended = 1; P_STORE(W_PRODUCER_CLOSED, 1, 0); }
#ifdef SLEEP
#ifndef MUT_CLOSE_WITHOUT_RING
    goto p_look;
#endif
#endif
p_end:
    skip
}
