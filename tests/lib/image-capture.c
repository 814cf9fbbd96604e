/* tests/lib/image-capture.c - virtbackupfs with one more source: `add`, `capture`, `forget` and `guardian` of qcow2 images
 * with real dirty bitmaps and without a VM. SOURCE is images:///PATH/vda.qcow2,/PATH/vdb.qcow2 (image-source.h).
 * What it makes is an ordinary repository: list, map and mount it with virtbackupfs itself. */
#include <string.h>

#include "command.h"
#include "image-source.h"

int main(int argc, char **argv) {
        const Command *const commands[] = { &command_add, &command_capture, &command_forget, &command_guardian };

        image_source_register();
        for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
                if (strcmp(argv[1], commands[i]->name) == 0)
                        return commands[i]->run(commands[i], argc - 1, argv + 1);
        return command_misused(NULL, "no such command");
}
