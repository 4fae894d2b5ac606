/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The allocator under any sequence of operations, beside the model of allocator_model.h. */
#include "tests/fuzz/allocator_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    model_run(data, size);
    return 0;
}
