/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker.pml - ring_geometry_publish, ring_geometry_followed, ring_reclaim_begin, the grace period
 * and ring_reclaim_finish (ring/geometry.c), and what the broker does about an end that died.
 */

#define OUT_P (p_gone || p_closed) /* makes no operation any more */
#define OUT_C (c_gone || c_closed)
#ifdef MUT_DEAD_NOT_CLEAR
#define DEAD_P false
#define DEAD_C false
#else
#define DEAD_P p_gone
#define DEAD_C c_gone
#endif
#ifdef MUT_DEAD_BEFORE_DRAINED
#define DEATH_KNOWN(buffer) true
#else
#define DEATH_KNOWN(buffer) DRAINED(buffer)
#endif
#define FITS_PROMISE (promised <= tail || promised - tail <= CAP(last))
#define LOOKS_IDLE (switch_count == followed && head == tail && FITS_PROMISE)

/* MEMBARRIER_CMD_GLOBAL: at some moment between call and return each buffer is empty. */
inline grace_period()
{
    atomic { DRAINED(buffer_b) }
#if !defined(FENCE_MARK) && !defined(MUT_FREE_WITHOUT_GRACE)
    atomic { waits_p = 1; waits_c = 1; }
    do
    :: atomic { waits_p && DRAINED(buffer_p) -> waits_p = 0; }
    :: atomic { waits_c && DRAINED(buffer_c) -> waits_c = 0; }
    :: atomic { !waits_p && !waits_c -> break }
    od
#endif
}

proctype broker()
{
    byte last = FIRST; /* published */
    byte number, moved_to, position, mark_p, mark_c;
    byte seen;         /* followed, when it was last looked at; 255: not yet */
    bool waits_p, waits_c, tried;

b_next:
    if
    :: last == GENERATIONS -> goto b_end
    :: last < GENERATIONS
    fi;

    atomic {
#ifdef PRESSURE
        p_armed != 0; /* grows a ring whose producer stalls */
#endif
        last++;
        take_extent(last);
        buffer_b ! W_EXTENT, last, 0;
        buffer_b ! W_GENERATION, last, 0;
        seen = 255; tried = 0;
    }
#ifdef SLEEP
#ifndef MUT_PUBLISH_WITHOUT_RING
#ifndef MUT_PUBLISH_WITHOUT_FENCE
    atomic { DRAINED(buffer_b) }
#endif
#ifdef MUT_RING_ONLY_LARGER
    if
    :: CAP(last) > CAP(last - 1)
    :: else -> goto b_rung
    fi;
#endif
    atomic {
        if
        :: p_armed != 0
        :: else -> goto b_rung
        fi
    }
    atomic { p_bell = 1; }
b_rung:
#endif
#endif
#ifdef MUT_PUBLISH_BEFORE_FREE
    goto b_next;
#endif
#ifndef MARKS
    goto b_next;
#else

b_moving:
    if
    /* The consumer has followed a switch to the new generation. */
    :: atomic { followed != seen -> seen = followed; goto b_followed }
    /* The ring may be idle. After a vain try the next one waits until it looks so. */
    :: atomic { !tried || LOOKS_IDLE -> tried = 1; goto b_reclaim }
#if KILLS || defined(CLOSE)
    :: atomic { OUT_P && OUT_C -> goto b_teardown }
#endif
    fi;

b_followed:
    atomic { moved_to = switch_generation[seen & 1]; }
#ifndef MUT_FOLLOWED_NOT_READ_AGAIN
    atomic {
        /* The record is that of switch `seen` only if the consumer is still there: else it may
         * have been overwritten with the one after the next. */
        if
        :: followed != seen -> moved_to = 0; goto b_moving
        :: else
        fi
    }
#endif
    atomic {
        if
        :: moved_to != last -> moved_to = 0; goto b_moving
        :: else -> moved_to = 0; goto b_free
        fi
    }

b_reclaim:
    atomic { number = switch_count; }
#ifndef MUT_FOLLOWED_READ_AFTER_GRACE
    atomic {
        if
        :: followed != number -> goto b_pinned
        :: else
        fi
    }
#endif
    grace_period();
#ifdef MUT_FOLLOWED_READ_AFTER_GRACE
    atomic {
        if
        :: followed != number -> goto b_pinned
        :: else
        fi
    }
#endif
#if defined(PROMISE) && defined(MUT_PROMISED_READ_FIRST)
    atomic { moved_to = promised; }
#endif
    atomic { mark_c = (c_mark % 2 -> c_mark : 0); }
#ifndef MUT_IGNORE_PRODUCER_MARK
    atomic { mark_p = (p_mark % 2 -> p_mark : 0); }
    atomic { mark_p == 0 || p_mark != mark_p || DEAD_P }
#endif
#ifdef MUT_SWITCH_NUMBER_BEFORE_PROMISED
    atomic {
        if
        :: switch_count != number -> goto b_pinned
        :: else
        fi
    }
#endif
    atomic { position = tail; }
#ifndef MUT_IGNORE_HEAD
    atomic {
        if
        :: head != position -> goto b_pinned
        :: else
        fi
    }
#endif
#if defined(PROMISE) && !defined(MUT_BROKER_IGNORES_PROMISE)
    atomic {
#ifndef MUT_PROMISED_READ_FIRST
        moved_to = promised;
#endif
        if
        :: moved_to > position && moved_to - position > CAP(last) -> goto b_pinned
        :: else
        fi
    }
#endif
#if !defined(MUT_SWITCH_NUMBER_NOT_READ_AGAIN) && !defined(MUT_SWITCH_NUMBER_BEFORE_PROMISED)
    atomic { /* last of what the producer says: see docs/model.md */
        if
        :: switch_count != number -> goto b_pinned
        :: else
        fi
    }
#endif
#ifndef MUT_IGNORE_CONSUMER_MARK
    atomic { mark_c == 0 || c_mark != mark_c || DEAD_C }
#endif

b_free:
    free_extent(last - 1);
b_pinned:
    atomic {
        number = 0; position = 0; mark_p = 0; mark_c = 0; moved_to = 0; seen = 255;
        if
        :: owner[(last - 1) & 1] == last - 1 -> goto b_moving
        :: else -> goto b_next
        fi
    }

#if KILLS || defined(CLOSE)
b_teardown: /* nobody is left: rule 4 */
    free_extent(last);
    free_extent(last - 1);
#endif
#endif
b_end:
    skip
}

#if KILLS
proctype undertaker()
{
    /* A process is known to be dead only after its last store has arrived. */
end:
    do
    :: atomic { p_dead && !p_gone && DEATH_KNOWN(buffer_p) -> p_gone = 1; }
#ifndef MUT_GONE_WITHOUT_RING
        c_bell = 1
#endif
    :: atomic { c_dead && !c_gone && DEATH_KNOWN(buffer_c) -> c_gone = 1; }
#ifndef MUT_GONE_WITHOUT_RING
        p_bell = 1
#endif
    od
}
#endif
