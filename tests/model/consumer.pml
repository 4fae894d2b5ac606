/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * consumer.pml - ring_consumer_peek and _release, _arm and _disarm, _close (ring/consumer.c).
 */

#if KILLS
#define C_DIES if :: kills > 0 -> kills--; c_dead = 1; goto c_end :: true fi
#define C_OR_DIES :: atomic { kills > 0 -> kills--; c_dead = 1; goto c_end }
#else
#define C_DIES skip
#define C_OR_DIES
#endif
#define C_WANTS (rest > 0 -> 1 : NEED)
#define C_STORE(word, a, b) C_DIES; buffer_c ! word, a, b

#ifdef MARKS
#define C_MARK c_marked = (c_marked + 1) % 4; C_STORE(W_CONSUMER_MARK, c_marked, 0)
#else
#define C_MARK skip
#endif

#ifdef MUT_NO_RING_AFTER_FOLLOW
#define FOLLOW_RINGS false
#else
#define FOLLOW_RINGS moved /* the producer may switch again, however few bytes were taken */
#endif

proctype consumer()
{
    byte own = 1, c_head, c_followed, c_marked; /* private copies */
    byte available, count, into, at, rest, wanted, number, armed, rung;
    bool ended, moved, nothing, closing;

c_next:
    atomic {
        if
        :: c_head == BYTES -> goto c_finished
#ifdef CLOSE
        :: c_head < BYTES -> goto c_close
#endif
        :: c_head < BYTES
        fi;
        C_MARK
    }
#if defined(FENCE_MARK) && !defined(MUT_MARK_WITHOUT_FENCE)
    atomic { DRAINED(buffer_c) }
#endif
#ifdef MUT_CONSUMER_LOADS_SWITCH_FIRST
    atomic { C_DIES; count = switch_count; }
#endif
#if (defined(CLOSE) || KILLS) && !defined(MUT_ENDED_READ_AFTER_TAIL)
    atomic { C_DIES; ended = p_closed || p_gone; }
#endif
    atomic { C_DIES; available = tail; }
#if (defined(CLOSE) || KILLS) && defined(MUT_ENDED_READ_AFTER_TAIL)
    atomic { C_DIES; ended = p_closed || p_gone; }
#endif
    atomic {
        C_DIES;
#ifndef MUT_CONSUMER_LOADS_SWITCH_FIRST
        count = switch_count;
#endif
        if
        :: count == c_followed -> goto c_limited
        :: else
        fi
    }
    atomic {
        C_DIES;
        assert(count == c_followed + 1);
        into = switch_generation[count & 1]; at = switch_position[count & 1];
        assert(at >= c_head);
        if
        :: at == c_head -> /* drained: follow */
            own = into; c_followed = count; moved = 1;
            C_STORE(W_FOLLOWED, c_followed, 0)
        :: else ->
            if
            :: NEED > 1 && available - c_head >= NEED -> rest = (rest > 0 -> rest : NEED)
            :: else
            fi;
            available = (available < at -> available : at);
            goto c_limited
        fi
    }
    atomic { C_DIES; assert(extent[own & 1] == own); goto c_limited } /* the broker's descriptor */

c_limited:
    atomic {
        if
        :: available <= c_head -> goto c_nothing
        :: available > c_head && rest == 0 && !ended && available - c_head < NEED -> goto c_nothing
        :: else ->
            if
            :: rest == 0 -> rest = (available - c_head < NEED -> available - c_head : NEED)
            :: else
            fi
        fi
    }
    atomic {
        C_DIES;
        assert(owner[own & 1] == own);      /* rule 2: no look at what is somebody else's */
        assert(CELL(own, c_head) == c_head); /* rule 1 */
        c_head++; rest--;
        C_STORE(W_HEAD, c_head, 0);
        C_MARK;
#ifdef SLEEP
#ifdef POLL
        nothing = 1; /* the program goes back to its poll(2) after each read */
#endif
        goto c_look_always
#else
        goto c_done
#endif
    }

c_nothing:
    atomic {
        C_MARK;
        if
        :: ended && available <= c_head && count == c_followed ->
            assert(tail == c_head && DRAINED(buffer_p)); /* rule 4: nothing published is lost */
            goto c_finished
        :: else -> nothing = 1
        fi;
#ifdef SLEEP
        goto c_look
#endif
    }

#ifdef SLEEP
c_look: /* whether the producer sleeps */
    atomic {
        if
        :: nothing && !moved -> goto c_sleep
        :: else
        fi
    }
c_look_always:
#if defined(FENCE_SLEEP) && !defined(MUT_LOOK_WITHOUT_FENCE)
    atomic { DRAINED(buffer_c) }
#endif
    atomic {
        C_DIES;
        armed = p_armed;
        if
        :: armed == 0 || armed == rung -> goto c_looked
        :: else
        fi
    }
    atomic {
        C_DIES;
        wanted = p_wanted;
        if
        :: c_head >= wanted || closing || FOLLOW_RINGS
        :: else -> goto c_looked
        fi
    }
    atomic { C_DIES; DRAINED(buffer_c); p_bell = 1; rung = armed; } /* a system call: drains */
c_looked:
    atomic {
        if
        :: closing -> goto c_end
        :: !closing && nothing
        :: else -> goto c_done
        fi
    }
c_sleep:
    atomic {
        if
        :: !nothing || c_head == BYTES -> goto c_done
        :: else
        fi;
#ifdef MUT_SAME_NUMBER_TWICE
        number = 1;
#else
        number++;
#endif
        C_STORE(W_CONSUMER_WANTED, c_head + C_WANTS, 0);
        C_STORE(W_CONSUMER_ARMED, number, 0);
    }
#ifndef MUT_NO_BARRIER_AFTER_ARM
    atomic { DRAINED(buffer_c) }
#if defined(ASYM_SLEEP) && !defined(MUT_OWN_FENCE_ONLY)
    atomic { DRAINED(buffer_p) }
#endif
#endif
#ifndef MUT_NO_RECHECK_AFTER_ARM
#if defined(CLOSE) || KILLS
    atomic {
        C_DIES;
        if
        :: p_closed || p_gone -> goto c_awake
        :: else
        fi
    }
#endif
    atomic {
        C_DIES;
        if
        :: tail >= c_head + C_WANTS -> goto c_awake
        :: else
        fi
    }
#ifndef MUT_RECHECK_TAIL_ONLY
    atomic {
        C_DIES;
        if
        :: switch_count != count -> goto c_awake
        :: else
        fi
    }
#endif
#endif
#ifdef POLL
c_poll: /* the program sleeps in poll(2), and calls nothing before the descriptor is readable */
#endif
    atomic {
        if
        :: c_bell -> c_bell = 0
        C_OR_DIES
        fi;
#ifdef POLL
        C_STORE(W_CONSUMER_ARMED, 0, 0);
        goto c_done
#endif
    }
c_awake:
#ifdef POLL
#ifndef MUT_POLL_WITHOUT_OWN_RING
    atomic { C_DIES; c_bell = 1; }
#endif
    goto c_poll;
#else
    atomic { C_STORE(W_CONSUMER_ARMED, 0, 0); goto c_done }
#endif
#else
    atomic {
        if
        :: tail >= c_head + C_WANTS || switch_count != count || p_closed || p_gone
        C_OR_DIES
        fi;
        goto c_done
    }
#endif
c_done:
    atomic {
        available = 0; count = 0; into = 0; at = 0; wanted = 0; armed = 0;
        ended = 0; moved = 0; nothing = 0;
        goto c_next
    }

c_finished:
#ifndef CLOSE
    goto c_end;
#endif
c_close: /* no operation follows */
    atomic { closing = 1; C_STORE(W_CONSUMER_CLOSED, 1, 0); }
#ifdef SLEEP
#ifndef MUT_CLOSE_WITHOUT_RING
    goto c_look_always;
#endif
#endif
c_end:
    skip
}
