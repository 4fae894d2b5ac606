/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/help.h - the help texts, from the table of commands.
 */
#ifndef VCHAN_CLIENT_CTL_HELP_H
#define VCHAN_CLIENT_CTL_HELP_H

#include <stdio.h>

#include "client/ctl/ctl.h"

void help_print(FILE *stream);
void help_print_command(const struct ctl_command *command);

#endif
