/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/rcu.h"

void rcu_finish(void)
{
    rcu_barrier();
}

#ifdef RCU_THREAD_SANITIZER
/* liburcu's own records of a barrier, which it allocates and frees in code that the sanitizer does
 * not see. */
const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:urcu_memb_barrier\n";
}
#endif
