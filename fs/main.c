/* fs/main.c - finds the command and runs it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "command-line/command.h"

/* In the order in which people need them. */
static const Command *const commands[] = {
        &command_init,
        &command_add,
        &command_capture,
        &command_mount,
        &command_list,
        &command_map,
        &command_diff,
        &command_files,
        &command_restore,
        &command_recover,
        &command_import,
        &command_export,
        &command_forget,
        &command_guardian,
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

#define USAGE_WIDTH 26 /* characters; all usages are shorter */

static int character_count(const char *text) {
        int count = 0;

        for (; *text; text++)
                count += ((unsigned char) *text & 0xc0) != 0x80; /* what goes on in UTF-8 is none */
        return count;
}

static int print_help(void) {
        printf("virtbackupfs %s: backups of virtual machines, as files\n\n"
               "Usage: virtbackupfs COMMAND [OPTIONS] ARGUMENTS\n\n",
               VIRTBACKUPFS_VERSION);
        for (size_t i = 0; i < COMMAND_COUNT; i++) {
                char usage[64];

                if (!commands[i]->summary)
                        continue;
                snprintf(usage, sizeof usage, "%s %s", commands[i]->name, commands[i]->arguments);
                printf("  %s%*s %s\n", usage, USAGE_WIDTH - character_count(usage), "", commands[i]->summary);
        }
        printf("\n'virtbackupfs COMMAND --help' tells the options of a command.\n"
               "A PATH is VM, VM/POINT or VM/POINT/DISK, where POINT may be 'latest'.\n"
               "Exit status: 0 done, 1 failed, 2 wrong usage, 3 done with findings.\n");
        return fflush(stdout) == 0 ? STATUS_DONE : STATUS_FAILED;
}

/* mount(8) and its helpers call REPO MOUNTPOINT -o OPTIONS, with no command in front. */
static bool is_path(const char *word) {
        struct stat st;

        return strchr(word, '/') || stat(word, &st) == 0;
}

/* Where a standard stream is closed, the next file opened would take its number, and what is printed would go into it. */
static void fill_standard_streams(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        if (fd >= 0)
                close(fd);
}

int main(int argc, char **argv) {
        fill_standard_streams();
        (void) setenv("TZ", ":/etc/localtime", 0); /* or the C library looks at that file for each local time that is told */
        if (argc < 2)
                return command_misused(NULL, "no command");
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
                return print_help();
        if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
                return command_print_version();
        for (size_t i = 0; i < COMMAND_COUNT; i++)
                if (strcmp(argv[1], commands[i]->name) == 0)
                        return commands[i]->run(commands[i], argc - 1, argv + 1);
        if (argv[1][0] != '-' && is_path(argv[1]))
                return command_mount.run(&command_mount, argc, argv);
        return command_misused(NULL, "%s is no command", argv[1]);
}
