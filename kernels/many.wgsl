#for m in MEMBERS
#include WORK

#end
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = group.y * groups.x + group.x;
  #for m in MEMBERS
  if (at >= sizes.first_${m} && at < sizes.first_${m + 1}) {
    work_${m}(at - sizes.first_${m}, lane);
  }
  #end
}
